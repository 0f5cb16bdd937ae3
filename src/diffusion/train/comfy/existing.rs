//! Adapters of a file that a training goes on with.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor};

use super::settings::Algorithm;
use crate::error::Result;
use crate::train::Fault;

/// How files name the two halves of a LoRA, behind the name of the layer.
const HALVES: [(&str, &str); 7] = [
    (".lora_up.weight", ".lora_down.weight"),
    ("_lora.up.weight", "_lora.down.weight"),
    (".lora_B.weight", ".lora_A.weight"),
    (".lora.up.weight", ".lora.down.weight"),
    (".lora_B", ".lora_A"),
    (".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight"),
    (".lora_B.default.weight", ".lora_A.default.weight"),
];

/// The tensors of a layer's adapter in the order of [`names`](super::adapter::names), if the file has one: ComfyUI's kinds in
/// its order. Its alpha is 1, as ComfyUI looks for it where no file has it, unless `<module>.weight.alpha` is there.
///
/// # Errors
/// [`Fault::Existing`] for what cannot be trained: cores of Tucker, factors in two parts, GLoRA, BOFT, and tensors that do not
/// fit a weight of that shape.
pub(super) fn existing(
    file: &BTreeMap<String, Tensor>,
    module: &str,
    shape: &[usize],
) -> Result<Option<(Algorithm, Vec<Tensor>)>> {
    let fault = |fact: &str| Fault::Existing { module: module.to_owned(), fact: fact.to_owned() };
    let get = |end: &str| file.get(&format!("{module}{end}"));
    let (outputs, inputs) = (shape[0], shape[1..].iter().product::<usize>());
    let alpha = match get(".weight.alpha") {
        Some(alpha) => alpha.flatten_all()?.to_dtype(DType::F32)?.reshape(())?,
        None => Tensor::new(1.0_f32, &Device::Cpu)?,
    };
    for (up, down) in HALVES {
        let Some(up) = get(up) else { continue };
        let down = get(down).ok_or_else(|| fault("it has an upper half and no lower one"))?;
        if get(".lora_mid.weight").is_some() {
            return Err(fault("it has a core between its halves").into());
        }
        return match (up.dims(), down.dims()) {
            (&[rows, rank], &[same, columns]) if rank == same && (rows, columns) == (outputs, inputs) => {
                Ok(Some((Algorithm::Lora, vec![alpha, up.clone(), down.clone()])))
            }
            (up, down) => {
                Err(fault(&format!("its halves are {up:?} and {down:?}, the layer's weight {shape:?}")).into())
            }
        };
    }
    if let Some(first) = get(".hada_w1_a") {
        let rest = [".hada_w1_b", ".hada_w2_a", ".hada_w2_b"].map(get);
        let [Some(b), Some(c), Some(d)] = rest else { return Err(fault("a factor of it is missing").into()) };
        if get(".hada_t1").is_some() {
            return Err(fault("its factors have cores").into());
        }
        let fits = |a: &Tensor, b: &Tensor| {
            matches!((a.dims(), b.dims()), (&[rows, rank], &[same, columns])
            if rank == same && (rows, columns) == (outputs, inputs))
        };
        if !fits(first, b) || !fits(c, d) {
            return Err(fault(&format!("its factors do not fit the layer's weight {shape:?}")).into());
        }
        return Ok(Some((Algorithm::Loha, vec![first.clone(), b.clone(), c.clone(), d.clone(), alpha])));
    }
    if let Some(lokr) = kronecker(&get, alpha.clone(), outputs, inputs) {
        return lokr.map(Some).map_err(|fact| fault(&fact).into());
    }
    if get(".a1.weight").is_some() {
        return Err(fault("it is a GLoRA").into());
    }
    match get(".oft_blocks") {
        None => Ok(None),
        Some(blocks) if get(".rescale").is_none() => match *blocks.dims() {
            [count, side, same] if side == same && count * side == outputs => {
                Ok(Some((Algorithm::Oft, vec![blocks.clone(), alpha])))
            }
            _ => Err(fault(&format!("its blocks are {:?}, the layer's weight {shape:?}", blocks.dims())).into()),
        },
        Some(_) => Err(fault("it scales what it turned").into()),
    }
}

/// A LoKr of whole factors; `None` where there is no part of one, and else what is wrong with it.
fn kronecker<'a>(
    get: &impl Fn(&str) -> Option<&'a Tensor>,
    alpha: Tensor,
    outputs: usize,
    inputs: usize,
) -> Option<Result<(Algorithm, Vec<Tensor>), String>> {
    let parts = [".lokr_w1_a", ".lokr_w2_a", ".lokr_t2"].map(get);
    if parts.iter().any(Option::is_some) {
        return Some(Err("a factor of it is made of two".to_owned()));
    }
    match (get(".lokr_w1"), get(".lokr_w2")) {
        (None, None) => None,
        (Some(left), Some(right)) => Some(match (left.dims(), right.dims()) {
            (&[a, b], &[c, d]) if (a * c, b * d) == (outputs, inputs) => {
                Ok((Algorithm::Lokr, vec![left.clone(), right.clone(), alpha]))
            }
            (left, right) => Err(format!("its factors are {left:?} and {right:?}, the weight {outputs} x {inputs}")),
        }),
        _ => Some(Err("a factor of it is missing".to_owned())),
    }
}

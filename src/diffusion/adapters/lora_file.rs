//! Files of the LoRA family: kohya's, diffusers' old and new ones, and LyCORIS's. Every key of a file becomes part of a module or a
//! row of the table of what was not used.

use std::collections::BTreeMap;

use candle_core::Tensor;
use serde_json::Value;

use super::dense;
use super::fault::{Fault, Unmatched};
use super::lora::{Form, LoraModel, Magnitude, Module, Vectors, number};
use super::names::Names;
use super::write::{Store, write};
use crate::error::{Error, Result};
use crate::nn::Weights;

/// What a tensor of a module is, by the end of its key; the longest end that fits counts.
const ENDS: [(&str, &str); 40] = [
    (".lora_up.weight", "up"),
    (".lora_down.weight", "down"),
    (".lora_mid.weight", "mid"),
    ("_lora.up.weight", "up"),
    ("_lora.down.weight", "down"),
    (".lora.up.weight", "up"),
    (".lora.down.weight", "down"),
    (".lora_linear_layer.up.weight", "up"),
    (".lora_linear_layer.down.weight", "down"),
    (".lora_B.weight", "up"),
    (".lora_A.weight", "down"),
    (".lora_B.default.weight", "up"),
    (".lora_A.default.weight", "down"),
    (".lora_B", "up"),
    (".lora_A", "down"),
    (".alpha", "alpha"),
    (".dora_scale", "magnitude"),
    (".lora_magnitude_vector", "peft_magnitude"),
    (".lora_magnitude_vector.weight", "peft_magnitude"),
    (".lora_magnitude_vector.default.weight", "peft_magnitude"),
    (".hada_w1_a", "hada_w1_a"),
    (".hada_w1_b", "hada_w1_b"),
    (".hada_w2_a", "hada_w2_a"),
    (".hada_w2_b", "hada_w2_b"),
    (".hada_t1", "hada_t1"),
    (".hada_t2", "hada_t2"),
    (".lokr_w1", "lokr_w1"),
    (".lokr_w1_a", "lokr_w1_a"),
    (".lokr_w1_b", "lokr_w1_b"),
    (".lokr_w2", "lokr_w2"),
    (".lokr_w2_a", "lokr_w2_a"),
    (".lokr_w2_b", "lokr_w2_b"),
    (".lokr_t2", "lokr_t2"),
    (".diff", "diff"),
    (".diff_b", "diff_b"),
    (".w_norm", "w_norm"),
    (".b_norm", "b_norm"),
    (".set_weight", "set_weight"),
    (".oft_blocks", "oft_blocks"),
    (".rescale", "rescale"),
];

/// The tensors of one module, by what they are.
type Parts = BTreeMap<&'static str, Tensor>;

impl LoraModel {
    /// Reads a file. The second value is the keys that are of no form known here, and the modules whose tensors do not belong
    /// together.
    ///
    /// # Errors
    /// [`Fault::NotAnAdapter`] when it holds no module at all, [`Fault::BadModule`] when it holds no whole one,
    /// [`Fault::NonFinite`].
    pub fn read(file: &Weights) -> Result<(Self, Vec<Unmatched>)> {
        Self::read_with(file, None)
    }

    /// Reads PEFT's `adapter_model.safetensors` with the settings of the `adapter_config.json` beside it, which tell the scale.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`Fault::NotAnAdapter`] for settings of another method.
    pub fn read_peft(file: &Weights, settings: &Value) -> Result<(Self, Vec<Unmatched>)> {
        match settings["peft_type"].as_str() {
            None | Some("LORA" | "LOHA" | "LOKR") => Self::read_with(file, Some(settings)),
            Some(other) => {
                let fact = format!("its adapter_config.json is of method `{other}`");
                let hint = "what is read of PEFT's: LORA, LOHA, LOKR, and DEFT with `para: true`".to_owned();
                Err(Fault::NotAnAdapter { file: file.file().to_owned(), fact, hint }.into())
            }
        }
    }

    fn read_with(file: &Weights, settings: Option<&Value>) -> Result<(Self, Vec<Unmatched>)> {
        let (mut modules, mut unknown) = (BTreeMap::<String, Parts>::new(), Vec::new());
        for key in file.names() {
            match split(key) {
                Some((module, part)) => {
                    let shape = file.shape(key).unwrap_or_default().to_vec();
                    let tensor = file.tensor(key, &shape)?;
                    dense::require_finite(key, &tensor)?;
                    let parts = modules.entry(module.to_owned()).or_default();
                    if parts.insert(part, tensor).is_some() {
                        let fact = format!("its `{part}` comes twice, under two endings");
                        return Err(Fault::BadModule { module: module.to_owned(), fact }.into());
                    }
                }
                None => unknown.push(Unmatched {
                    name: key.to_owned(),
                    why: "tensors of this form are not read".to_owned(),
                    nearest: Vec::new(),
                }),
            }
        }
        if modules.is_empty() {
            return Err(not_a_lora(file));
        }
        let settings = settings.cloned().unwrap_or_else(|| peft_settings(file.metadata()));
        let mut read = Self { metadata: file.metadata().clone(), ..Self::default() };
        let mut first = None;
        for (name, mut parts) in modules {
            let vectors = vectors(&name, &mut parts, &mut unknown)?;
            let has_vectors = vectors.tensors().next().is_some();
            // An alpha weighs factors.
            if !has_vectors || parts.keys().any(|part| *part != "alpha") {
                match assemble(&name, parts, &settings) {
                    Ok(module) => {
                        read.modules.insert(name.clone(), module);
                    }
                    Err(Error::Adapter(Fault::BadModule { module, fact })) => {
                        unknown.push(Unmatched { name: name.clone(), why: fact.clone(), nearest: Vec::new() });
                        first.get_or_insert(Fault::BadModule { module, fact });
                    }
                    Err(error) => return Err(error),
                }
            }
            if has_vectors {
                read.vectors.insert(name, vectors);
            }
        }
        match first {
            Some(fault) if read.modules.is_empty() && read.vectors.is_empty() => Err(fault.into()),
            _ => Ok((read, unknown)),
        }
    }

    /// The bytes of a file: in kohya's form, which every tool reads, what is a LoRA or a whole difference, and in LyCORIS's the
    /// other forms.
    ///
    /// # Errors
    /// [`Fault::BadModule`] for a DoRA.
    pub fn to_file(&self, names: Option<&Names>, store: Store) -> Result<Vec<u8>> {
        let mut tensors = Vec::new();
        for (spelling, module) in &self.modules {
            let name = match names.and_then(|names| names.find(spelling).map(|(_, layer)| names.kohya(layer))) {
                Some(kohya) => kohya,
                None => spelling.clone(),
            };
            match &module.form {
                Form::LowRank { up, down } if module.magnitude.is_none() => {
                    let rank = down.dim(0)?;
                    let alpha = Tensor::new((module.scale * rank as f64) as f32, up.device())?;
                    // A convolution's upper half is one of a single pixel.
                    let up = if down.rank() == 4 { up.reshape((up.dim(0)?, rank, 1, 1))? } else { up.clone() };
                    tensors.push((format!("{name}.alpha"), alpha, store));
                    tensors.push((format!("{name}.lora_down.weight"), down.clone(), store));
                    tensors.push((format!("{name}.lora_up.weight"), up, store));
                }
                Form::Whole(change) if module.magnitude.is_none() => {
                    tensors.push((format!("{name}.diff"), (change * module.scale)?, store));
                }
                Form::Set(weight) => tensors.push((format!("{name}.set_weight"), weight.clone(), store)),
                form if module.magnitude.is_none() => {
                    tensors.extend(
                        lycoris(form, module.scale)?
                            .into_iter()
                            .map(|(end, tensor)| (format!("{name}.{end}"), tensor, store)),
                    );
                }
                _ => {
                    let fact = format!("a {} cannot be written: its lengths have no place there", module.kind());
                    return Err(Fault::BadModule { module: name, fact }.into());
                }
            }
        }
        for (name, vectors) in &self.vectors {
            tensors.extend(vectors.tensors().map(|(end, tensor)| (format!("{name}.{end}"), tensor.clone(), store)));
        }
        write(&tensors, &self.metadata)
    }
}

/// The tensors of a module of factors in LyCORIS's form, by the ends of their keys.
fn lycoris(form: &Form, scale: f64) -> Result<Vec<(&'static str, Tensor)>> {
    let number = |number: f64| Tensor::new(number as f32, &candle_core::Device::Cpu);
    Ok(match form {
        Form::Hadamard { factors } => {
            let [a, b, c, d] = &**factors;
            let alpha = number(scale * b.dim(0)? as f64)?;
            vec![
                ("alpha", alpha),
                ("hada_w1_a", a.clone()),
                ("hada_w1_b", b.clone()),
                ("hada_w2_a", c.clone()),
                ("hada_w2_b", d.clone()),
            ]
        }
        // Beside whole factors an alpha weighs nothing.
        Form::Kronecker { left, right } => {
            vec![("alpha", number(1.0)?), ("lokr_w1", (left * scale)?), ("lokr_w2", right.clone())]
        }
        Form::Turned { blocks, constraint } => vec![("alpha", number(*constraint)?), ("oft_blocks", blocks.clone())],
        Form::LowRank { .. } | Form::Whole(_) | Form::Set(_) => unreachable!("their caller writes these"),
    })
}

/// A key as its module and what it is there; `None` for a form that is not read.
fn split(key: &str) -> Option<(&str, &'static str)> {
    let ends = ENDS.iter().filter(|(end, _)| key.ends_with(end));
    let (end, part) = ends.max_by_key(|(end, _)| end.len())?;
    Some((&key[..key.len() - end.len()], part))
}

/// Why a file is no LoRA, and what it may be.
fn not_a_lora(file: &Weights) -> crate::Error {
    let has = |end: &str| file.names().any(|name| name.contains(end));
    let (fact, hint) = if has(".para_q") {
        ("it holds a PaRa, not a LoRA", "load it with PaRaLoad")
    } else if has("input_blocks.") && has("middle_block.") {
        ("it is a whole checkpoint, not a LoRA", "load it with CheckpointLoaderSimple, from models/checkpoints")
    } else {
        ("it holds no LoRA, LoHa, LoKr or DoRA", "")
    };
    Fault::NotAnAdapter { file: file.file().to_owned(), fact: fact.to_owned(), hint: hint.to_owned() }.into()
}

/// PEFT's settings that diffusers writes into the header for all modules, those of the UNet if there are several.
fn peft_settings(metadata: &BTreeMap<String, String>) -> Value {
    let all: Value =
        metadata.get("lora_adapter_metadata").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let Value::Object(all) = all else { return Value::Null };
    let strip = |(key, value): (String, Value)| (key.strip_prefix("unet.").unwrap_or(&key).to_owned(), value);
    Value::Object(all.into_iter().map(strip).collect())
}

/// What the product of a module of that rank is multiplied by: by the file's own alpha, else by PEFT's settings, else 1.
fn scale_of(name: &str, alpha: Option<f64>, rank: usize, settings: &Value) -> f64 {
    if let Some(alpha) = alpha {
        return alpha / rank as f64;
    }
    // PEFT's patterns are names of modules, or ends of them.
    let own = settings["alpha_pattern"].as_object().into_iter().flatten();
    let mut own = own.filter(|(pattern, _)| name == *pattern || name.ends_with(&format!(".{pattern}")));
    let alpha = own.next().map_or(&settings["lora_alpha"], |(_, alpha)| alpha).as_f64();
    let alpha = alpha.or_else(|| settings["alpha"].as_f64());
    let divisor = if settings["use_rslora"] == Value::Bool(true) { (rank as f64).sqrt() } else { rank as f64 };
    alpha.map_or(1.0, |alpha| alpha / divisor)
}

/// Takes what a module adds beside its weight. As in ComfyUI, a norm's shift counts only beside its scale.
fn vectors(name: &str, parts: &mut Parts, unknown: &mut Vec<Unmatched>) -> Result<Vectors, Fault> {
    let bad = |fact: &str| Fault::BadModule { module: name.to_owned(), fact: fact.to_owned() };
    let mut of_one_dimension = |part: &'static str| match parts.get(part) {
        Some(tensor) if tensor.rank() == 1 => parts.remove(part),
        _ => None,
    };
    let (scale, set) = (of_one_dimension("diff"), of_one_dimension("set_weight"));
    let (norm, shift) = (of_one_dimension("w_norm"), of_one_dimension("diff_b"));
    let mut of_norm = of_one_dimension("b_norm");
    if norm.is_none() && of_norm.take().is_some() {
        let why = "it moves a norm whose scale is not there".to_owned();
        unknown.push(Unmatched { name: format!("{name}.b_norm"), why, nearest: Vec::new() });
    }
    if (scale.is_some() && norm.is_some()) || (shift.is_some() && of_norm.is_some()) {
        return Err(bad("what is added to a norm comes twice, under two endings"));
    }
    Ok(Vectors { scale: norm.or(scale), set, shift: of_norm.or(shift) })
}

fn assemble(name: &str, mut parts: Parts, settings: &Value) -> Result<Module> {
    let bad = |fact: String| Fault::BadModule { module: name.to_owned(), fact };
    let alpha = match parts.remove("alpha") {
        None => None,
        Some(alpha) => Some(number(&alpha)?.ok_or_else(|| bad("its alpha is more than one number".to_owned()))?),
    };
    let magnitude = parts.remove("magnitude").map(Magnitude::Lycoris);
    let magnitude = magnitude.or(parts.remove("peft_magnitude").map(Magnitude::Peft));
    let scale = |rank: usize| scale_of(name, alpha, rank, settings);
    let mut take = |part: &'static str| parts.remove(part);
    // ComfyUI reads it and leaves it out.
    let rescaled = take("rescale").is_some();
    let (form, scale) = if let Some(up) = take("up") {
        let down = take("down").ok_or_else(|| bad("it has an upper half and no lower one".to_owned()))?;
        let mid = take("mid");
        low_rank(&bad, &up, &down, mid.as_ref()).map(|(form, rank)| (form, scale(rank)))?
    } else if let Some(w1_a) = take("hada_w1_a") {
        let mut need = |part: &'static str| take(part).ok_or_else(|| bad(format!("`{part}` is missing")));
        let (w1_b, w2_a, w2_b) = (need("hada_w1_b")?, need("hada_w2_a")?, need("hada_w2_b")?);
        let rank = w1_b.dim(0)?;
        let (t1, t2) = (take("hada_t1"), take("hada_t2"));
        (hadamard(&bad, [w1_a, w1_b, w2_a, w2_b], t1.zip(t2))?, scale(rank))
    } else if let Some(blocks) = take("oft_blocks") {
        match *blocks.dims() {
            [_, rows, columns] if rows == columns => (Form::Turned { blocks, constraint: alpha.unwrap_or(0.0) }, 1.0),
            [_, _, _, _] => return Err(bad("it is a BOFT, which is not read".to_owned()).into()),
            ref shape => return Err(bad(format!("its blocks are {shape:?}")).into()),
        }
    } else {
        let left = factor(&bad, [take("lokr_w1"), take("lokr_w1_a"), take("lokr_w1_b")], None)?;
        let right = factor(&bad, [take("lokr_w2"), take("lokr_w2_a"), take("lokr_w2_b")], take("lokr_t2"))?;
        let whole = take("diff").map(Form::Whole).or_else(|| take("set_weight").map(Form::Set));
        match (left, right, whole) {
            (Some((left, a)), Some((right, b)), None) => {
                if left.rank() != 2 || right.rank() < 2 {
                    return Err(bad(format!("its factors are {:?} and {:?}", left.dims(), right.dims())).into());
                }
                (Form::Kronecker { left, right }, b.or(a).map_or(1.0, scale))
            }
            (None, None, Some(whole)) => (whole, 1.0),
            _ => return Err(bad("its tensors make no whole module".to_owned()).into()),
        }
    };
    if rescaled && !matches!(form, Form::Turned { .. }) {
        return Err(bad("`rescale` does not belong to a module of this form".to_owned()).into());
    }
    if let Some(left) = parts.keys().next() {
        return Err(bad(format!("`{left}` does not belong to a module of this form")).into());
    }
    Ok(Module { form, scale, magnitude })
}

fn low_rank(bad: &dyn Fn(String) -> Fault, up: &Tensor, down: &Tensor, mid: Option<&Tensor>) -> Result<(Form, usize)> {
    let shapes = || bad(format!("its halves are {:?} and {:?}", up.dims(), down.dims()));
    if up.rank() < 2 || down.rank() < 2 || up.rank() == 3 || down.rank() == 3 {
        return Err(shapes().into());
    }
    let rank = down.dim(0)?;
    if up.elem_count() != up.dim(0)? * rank {
        return Err(shapes().into());
    }
    let up = up.reshape((up.dim(0)?, rank))?;
    let down = match mid {
        None => down.clone(),
        Some(mid) => tucker(mid, &down.flatten_from(1)?).map_err(|_| shapes())?,
    };
    Ok((Form::LowRank { up, down }, rank))
}

/// `[p, q, height, width]` and `[q, in]` to `[p, in, height, width]`.
fn tucker(core: &Tensor, right: &Tensor) -> Result<Tensor> {
    let (p, q, height, width) = core.dims4()?;
    let cells = core.permute((0, 2, 3, 1))?.contiguous()?.reshape((p * height * width, q))?;
    let product = cells.matmul(&right.contiguous()?)?.reshape((p, height, width, right.dim(1)?))?;
    Ok(product.permute((0, 3, 1, 2))?.contiguous()?)
}

fn hadamard(bad: &dyn Fn(String) -> Fault, factors: [Tensor; 4], cores: Option<(Tensor, Tensor)>) -> Result<Form> {
    let shapes = bad(format!("its factors are {:?}", factors.each_ref().map(Tensor::dims)));
    let [a, b, c, d] = factors;
    let factors = match cores {
        None => [a, b, c, d],
        // LyCORIS holds the factors of a convolution by rank first.
        Some((t1, t2)) => [
            a.t()?.contiguous()?,
            tucker(&t1, &b).map_err(|_| shapes.clone())?.flatten_from(1)?,
            c.t()?.contiguous()?,
            tucker(&t2, &d).map_err(|_| shapes.clone())?.flatten_from(1)?,
        ],
    };
    let [a, b, c, d] = &factors;
    let fit = [a, b, c, d].iter().all(|factor| factor.rank() == 2)
        && a.dims()[1] == b.dims()[0]
        && c.dims()[1] == d.dims()[0]
        && (a.dims()[0], b.dims()[1]) == (c.dims()[0], d.dims()[1]);
    if fit { Ok(Form::Hadamard { factors: Box::new(factors) }) } else { Err(shapes.into()) }
}

/// One factor of a Kronecker product, and its rank if it is a product itself.
fn factor(
    bad: &dyn Fn(String) -> Fault,
    [whole, a, b]: [Option<Tensor>; 3],
    core: Option<Tensor>,
) -> Result<Option<(Tensor, Option<usize>)>> {
    Ok(match (whole, a.zip(b)) {
        (Some(whole), None) => Some((whole, None)),
        (None, Some((a, b))) => {
            let rank = b.dim(0)?;
            let fault = bad(format!("its factors are {:?} and {:?}", a.dims(), b.dims()));
            let product = match core {
                None if b.rank() == 4 => {
                    let shape = [&[a.dim(0)?], &b.dims()[1..]].concat();
                    a.matmul(&b.flatten_from(1)?).and_then(|product| product.reshape(shape)).map_err(|_| fault)?
                }
                None => a.matmul(&b).map_err(|_| fault)?,
                Some(core) => {
                    let inner = tucker(&core, &b).map_err(|_| fault.clone())?;
                    let shape = [&[a.dim(1)?], &inner.dims()[1..]].concat();
                    let product = a.t()?.contiguous()?.matmul(&inner.flatten_from(1)?);
                    product.and_then(|product| product.reshape(shape)).map_err(|_| fault)?
                }
            };
            Some((product, Some(rank)))
        }
        (None, None) => None,
        (Some(_), Some(_)) => return Err(bad("a factor comes whole and in two".to_owned()).into()),
    })
}

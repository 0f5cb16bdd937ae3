//! Networks with other tensors: mixed with others of their architecture, every tensor a sum of two, each times a factor; and
//! with something added to biases and norms.
//!
//! Nothing is computed when networks are mixed. A layer that no adapter changed sums the numbers of the two files when it
//! first runs; one that adapters changed sums what they make of it.

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::adapters::{By, Moved, Store, on_layers, write};
use crate::error::Result;
use crate::nn::{Layers, Renamed, Weight, Weights};
use crate::text::ClipText;
use crate::unet::UNet;

/// A network that is found in tensors again after they were mixed.
pub trait Network: Layers + Clone {
    /// Its tensors, named as every network of the kind names them.
    fn tensors(&self) -> Weights;

    /// What a layer's weight is called among them.
    fn key(layer: &str) -> String {
        format!("{layer}.weight")
    }

    /// The network of other tensors of the same names and shapes.
    ///
    /// # Errors
    /// A tensor is missing.
    fn of(&self, tensors: &Weights) -> Result<Self>;
}

impl Network for UNet {
    fn tensors(&self) -> Weights {
        self.source().clone()
    }

    fn of(&self, tensors: &Weights) -> Result<Self> {
        Self::load(tensors)
    }
}

impl Network for ClipText {
    fn tensors(&self) -> Weights {
        let source = self.source();
        if source.names().any(|name| name.starts_with("text_model.")) {
            return source.clone();
        }
        source.renamed(|name| {
            let nested = if name.starts_with("text_projection") { name.to_owned() } else { Self::key_of(name) };
            vec![Renamed::whole(nested)]
        })
    }

    fn key(layer: &str) -> String {
        if layer.starts_with("text_projection") {
            format!("{layer}.weight")
        } else {
            Self::key_of(&format!("{layer}.weight"))
        }
    }

    fn of(&self, tensors: &Weights) -> Result<Self> {
        Self::load(tensors, self.family())
    }
}

impl ClipText {
    fn key_of(name: &str) -> String {
        format!("text_model.{name}")
    }
}

/// A network with something added to its biases and norms. The weights of its layers, with all that acts on them, are shared.
///
/// # Errors
/// A tensor is missing, or of another shape.
pub fn moved<N: Network>(network: &N, moves: &[&Moved]) -> Result<N> {
    if moves.is_empty() {
        return Ok(network.clone());
    }
    let tensors = network.tensors();
    let mut made = BTreeMap::<String, Tensor>::new();
    for moved in moves {
        let weight = N::key(&moved.place);
        let name = match weight.strip_suffix("weight") {
            Some(place) if moved.is_bias => format!("{place}bias"),
            _ => weight,
        };
        let after = match (&moved.by, made.get(&name)) {
            (By::Set(numbers), _) => numbers.clone(),
            (By::Add(numbers), Some(before)) => (before + numbers)?,
            (By::Add(numbers), None) => (tensors.tensor(&name, numbers.dims())? + numbers)?,
        };
        made.insert(name, after);
    }
    for thirds in together(made.keys()) {
        for name in thirds {
            if let (false, Some(shape)) = (made.contains_key(&name), tensors.shape(&name)) {
                let numbers = tensors.tensor(&name, shape)?;
                made.insert(name, numbers);
            }
        }
    }
    let made: Vec<_> = made.into_iter().map(|(name, numbers)| (name, numbers, Store::F32)).collect();
    let made = Weights::from_bytes(tensors.file(), write(&made, &BTreeMap::new())?)?;
    let mut moved = network.of(&tensors.overlaid(&made))?;
    let ours = by_name(network);
    moved.visit(&mut |weight| {
        if let Some(ours) = ours.get(weight.layer()) {
            *weight = ours.clone();
        }
    });
    Ok(moved)
}

/// The biases of queries, keys and values where any of the three is among these: OpenCLIP's files hold them as one tensor, which
/// is of one type.
fn together<'a>(names: impl Iterator<Item = &'a String>) -> Vec<[String; 3]> {
    const THIRDS: [&str; 3] = ["q_proj.bias", "k_proj.bias", "v_proj.bias"];
    let place = |name: &'a String| THIRDS.iter().find_map(|third| name.strip_suffix(third));
    names.filter_map(place).map(|place| THIRDS.map(|third| format!("{place}{third}"))).collect()
}

/// The weights of a network's layers.
fn by_name<N: Network>(network: &N) -> BTreeMap<String, Weight> {
    on_layers(network).into_iter().map(|weight| (weight.layer().to_owned(), weight)).collect()
}

/// A network whose every tensor is `one · a + other · b`, with the factors that `factors` gives for its name; `None` leaves
/// it as it is in the first. What the second does not have is left, too.
///
/// The second value names tensors that are of another shape in the second network and were left because their factor in the
/// first is 1, as where models that see more channels than a latent get what others differ by.
///
/// # Errors
/// [`crate::Error::WrongShape`] for a tensor of another shape whose factor in the first is not 1.
pub fn mixed<N: Network>(one: &N, other: &N, factors: &dyn Fn(&str) -> Option<[f64; 2]>) -> Result<(N, Vec<String>)> {
    remade(one, other, factors, &|ours, theirs| match factors(&N::key(ours.layer())) {
        Some(factors) if theirs.shape() == ours.shape() => Some(ours.mixed(theirs, factors)),
        _ => None,
    })
}

/// A network moved by a share of the way from what its file holds to another: `W + strength · (other − file)` for every
/// tensor, with all that adapters made of `W`.
///
/// # Errors
/// [`crate::Error::WrongShape`] for a tensor of another shape.
pub fn toward<N: Network>(network: &N, other: &N, strength: f64) -> Result<N> {
    let factors = |_: &str| Some([1.0 - strength, strength]);
    let (moved, _) = remade(network, other, &factors, &|ours, theirs| Some(ours.toward(theirs, strength)))?;
    Ok(moved)
}

/// A network of mixed tensors. A layer that adapters changed in one of both, and that `layer` makes nothing of, stays.
fn remade<N: Network>(
    one: &N,
    other: &N,
    factors: &dyn Fn(&str) -> Option<[f64; 2]>,
    layer: &dyn Fn(&Weight, &Weight) -> Option<Result<Weight>>,
) -> Result<(N, Vec<String>)> {
    let (tensors, kept) = one.tensors().mixed(&other.tensors(), factors)?;
    let mut network = one.of(&tensors)?;
    let (ours, theirs) = (by_name(one), by_name(other));
    let mut outcome = Ok(());
    network.visit(&mut |weight| {
        let Some(ours) = ours.get(weight.layer()) else { return };
        let theirs = theirs.get(weight.layer());
        // Two layers as their files have them are mixed as tensors already.
        let is_plain = |theirs: &Weight| !ours.is_changed() && !theirs.is_changed();
        let mixes = theirs.is_some_and(|theirs| theirs.shape() == ours.shape());
        match theirs.and_then(|theirs| layer(ours, theirs)) {
            Some(_) if mixes && theirs.is_some_and(is_plain) => {}
            Some(made) if outcome.is_ok() => outcome = made.map(|made| *weight = made),
            Some(_) => {}
            None => *weight = ours.clone(),
        }
    });
    outcome?;
    Ok((network, kept))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use candle_core::Device;

    use super::*;
    use crate::nn::{Adapter, Geometry, attach};
    use crate::testing::{Golden, relative_error, value};

    fn unet(golden: &Golden) -> UNet {
        UNet::load(&golden.weights().part("model.diffusion_model.")).unwrap()
    }

    fn run(unet: &UNet) -> Tensor {
        let (x, context) = (value("x", &[1, 4, 8, 8], 1.5), value("context", &[1, 77, 160], 1.5));
        let timesteps = Tensor::new(&[500.0_f32], &Device::Cpu).unwrap();
        unet.forward(&x, &timesteps, &context, None).unwrap()
    }

    /// A layer's weight times a number.
    struct Times(f64);

    impl Adapter for Times {
        fn weight(&self, base: &Tensor) -> Result<Tensor> {
            Ok(base.affine(self.0, 0.0)?)
        }

        fn output(&self, _: Geometry, _: &Tensor, y: Tensor) -> Result<Tensor> {
            Ok(y.affine(self.0, 0.0)?)
        }
    }

    #[test]
    fn a_network_mixed_with_itself_is_itself() {
        let unet = unet(&Golden::open("unet_narrow"));
        let (half, kept) = mixed(&unet, &unet, &|_| Some([0.25, 0.75])).unwrap();
        assert!(kept.is_empty());
        assert!(relative_error(&run(&half), &run(&unet)) < 1e-6);
        let name = "input_blocks.0.0.weight";
        let doubled = mixed(&unet, &unet, &|key| (key == name).then_some([1.0, 1.0])).unwrap().0;
        let shape = unet.source().shape(name).unwrap().to_vec();
        let (before, after) =
            (unet.source().tensor(name, &shape).unwrap(), doubled.source().tensor(name, &shape).unwrap());
        assert_eq!(
            (before * 2.0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(),
            after.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        );
        assert_eq!(doubled.source().bytes(name).unwrap().len(), 4 * after.elem_count());
    }

    /// A layer with an adapter is mixed with what the adapter makes of it, and not before it runs.
    #[test]
    fn adapters_are_mixed_in() {
        let unet = unet(&Golden::open("unet_narrow"));
        let layer = "middle_block.1.proj_in";
        let adapter: Arc<dyn Adapter> = Arc::new(Times(3.0));
        let adapted = attach(&unet, &[(layer.to_owned(), adapter)]).unwrap();
        let (mixed, _) = mixed(&unet, &adapted, &|_| Some([0.5, 0.5])).unwrap();
        let find = |unet: &UNet| on_layers(unet).into_iter().find(|weight| weight.layer() == layer).unwrap();
        let expected = find(&unet).effective().unwrap().affine(2.0, 0.0).unwrap();
        assert!(relative_error(&find(&mixed).effective().unwrap(), &expected) < 1e-6);
        let baked = attach(&unet, &[(layer.to_owned(), Arc::new(Times(2.0)) as Arc<dyn Adapter>)]).unwrap();
        assert!(relative_error(&run(&mixed), &run(&baked)) < 1e-5);
        // Adapters go on top of what was mixed.
        let again = attach(&mixed, &[(layer.to_owned(), Arc::new(Times(0.5)) as Arc<dyn Adapter>)]).unwrap();
        assert!(relative_error(&run(&again), &run(&unet)) < 1e-5);
    }

    #[test]
    fn tensors_of_another_shape_are_kept_or_refused() {
        let golden = Golden::open("unet_narrow");
        let mut wider = Golden::open("unet_narrow");
        let first = "model.diffusion_model.input_blocks.0.0.weight";
        wider.tensors.get_mut(first).unwrap()[1] = 9;
        let (wide, unet) = (unet(&wider), unet(&golden));
        let (sum, kept) = mixed(&wide, &unet, &|_| Some([1.0, 1.0])).unwrap();
        assert_eq!((kept, sum.config().input), (vec!["input_blocks.0.0.weight".to_owned()], 9));
        let Err(error) = mixed(&wide, &unet, &|_| Some([0.5, 0.5])) else { panic!("mixed") };
        assert!(error.to_string().contains("as in"), "{error}");
    }
}

//! The UNet by itself: beside the reference, with adapters, and what it refuses.

use std::sync::Arc;

use candle_core::{DType, Device, Var};

use super::*;
use crate::nn::{Adapter, attach, layers};
use crate::testing::{Golden, relative_error, value};

/// The network of a recording run on the recording's inputs, and its distance from the reference.
fn error_of(case: &str) -> f64 {
    let golden = Golden::open(case);
    let weights = golden.weights();
    let unet = UNet::load(&weights.part("model.diffusion_model.")).unwrap();
    assert_eq!(weights.unread(), [] as [String; 0]);
    let (size, context) = (golden.numbers("size"), unet.config().context.unwrap());
    let x = value("x", &[2, 4, size[0], size[1]], 1.5);
    let context = value("context", &[2, 77, context], 1.5);
    let y = unet.forward(&x, &golden.tensor("timesteps"), &context, None).unwrap();
    let error = relative_error(&y, &golden.tensor("output"));
    println!("{case}: relative error {error:.2e}");
    error
}

// f32 sums in another order than the reference's differ by about 1e-6; a wrong formula by 1e-2 and more.
#[test]
fn predicts_what_the_reference_predicts() {
    for case in ["unet_narrow", "unet_odd", "unet_deep"] {
        assert!(error_of(case) < 1e-5, "{case}");
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let golden = Golden::open("unet_odd");
    let unet = UNet::load(&golden.weights().part("model.diffusion_model.")).unwrap();
    let (x, context) = (value("x", &[2, 4, 29, 31], 1.5), value("context", &[2, 77, 96], 1.5));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let y = pool.install(|| unet.forward(&x, &golden.tensor("timesteps"), &context, None)).unwrap();
        y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let one = run(1);
    assert!(run(2) == one && run(3) == one);
}

/// Gradients by the latent and by the prompt pass every kind of layer on their way.
#[test]
fn has_the_reference_s_gradients() {
    let golden = Golden::open("unet_narrow");
    let unet = UNet::load(&golden.weights().part("model.diffusion_model.")).unwrap();
    let x = Var::from_tensor(&value("x", &[2, 4, 16, 16], 1.5)).unwrap();
    let context = Var::from_tensor(&value("context", &[2, 77, 160], 1.5)).unwrap();
    let y = unet.forward(&x, &golden.tensor("timesteps"), &context, None).unwrap();
    let loss = (&y * value("weights", y.dims(), 1.0)).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let error = |var: &Var, name: &str| relative_error(gradients.get(var).unwrap(), &golden.tensor(name));
    let (x, context) = (error(&x, "x_gradient"), error(&context, "context_gradient"));
    println!("gradients: relative error {x:.2e} by the latent, {context:.2e} by the prompt");
    assert!(x < 1e-5 && context < 1e-5);
}

/// `y + factor · y`, one factor an output channel.
struct Beside(Var);

impl Adapter for Beside {
    fn weight(&self, base: &Tensor) -> Result<Tensor> {
        Ok((base + base.flatten_from(1)?.broadcast_mul(&self.0)?.reshape(base.shape())?)?)
    }

    fn output(&self, _: Geometry, _: &Tensor, y: Tensor) -> Result<Tensor> {
        Ok((&y + y.broadcast_mul(&self.0.flatten_all()?)?)?)
    }
}

/// A small factor for every output channel of every layer.
fn adapters(unet: &UNet) -> Vec<(String, Var)> {
    let factor = |(name, shape): (String, Vec<usize>)| {
        let factor = Var::from_tensor(&value(&name, &[shape[0], 1], 0.01)).unwrap();
        (name, factor)
    };
    layers(unet).into_iter().map(factor).collect()
}

fn attached(unet: &UNet, factors: &[(String, Var)]) -> UNet {
    let adapter = |(name, factor): &(String, Var)| (name.clone(), Arc::new(Beside(factor.clone())) as Arc<dyn Adapter>);
    attach(unet, &factors.iter().map(adapter).collect::<Vec<_>>()).unwrap()
}

#[test]
fn every_layer_takes_an_adapter_and_gives_it_a_gradient() {
    let golden = Golden::open("unet_narrow");
    let unet = UNet::load(&golden.weights().part("model.diffusion_model.")).unwrap();
    let factors = adapters(&unet);
    assert!(factors.iter().any(|(name, _)| name == "input_blocks.1.1.transformer_blocks.0.attn2.to_out.0"));
    let adapted = attached(&unet, &factors);
    let (x, context) = (value("x", &[2, 4, 8, 8], 1.5), value("context", &[2, 77, 160], 1.5));
    let run = |unet: &UNet| unet.forward(&x, &golden.tensor("timesteps"), &context, None).unwrap();

    let beside = run(&adapted);
    assert!(relative_error(&beside, &run(&unet)) > 1e-3, "the adapters act");
    let mut baked = adapted.clone();
    baked.visit(&mut |weight| *weight = weight.baked().unwrap());
    assert!(relative_error(&run(&baked), &beside) < 1e-5, "and mean the same baked in");

    let gradients = (&beside * value("weights", beside.dims(), 1.0)).unwrap().sum_all().unwrap().backward().unwrap();
    for (name, factor) in &factors {
        let gradient = gradients.get(factor).unwrap_or_else(|| panic!("`{name}` has no gradient"));
        let size = gradient.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(size.is_finite() && size > 0.0, "`{name}`: {size}");
    }
}

#[test]
fn an_adapter_for_no_layer_is_an_error() {
    let unet = UNet::load(&Golden::open("unet_narrow").weights().part("model.diffusion_model.")).unwrap();
    let factor = Var::from_tensor(&value("factor", &[64, 1], 0.01)).unwrap();
    let adapter: Arc<dyn Adapter> = Arc::new(Beside(factor));
    let Err(error) = attach(&unet, &[("middle_block.1.proj_inn".to_owned(), adapter)]) else { panic!("attached") };
    let message = error.to_string();
    assert!(message.starts_with("no layer is called `middle_block.1.proj_inn`"), "{message}");
    assert!(message.contains("`middle_block.1.proj_in`"), "{message}");
}

#[test]
fn reads_its_architecture_off_the_shapes() {
    let golden = Golden::open("unet_odd");
    let config = Config::read(&golden.weights().part("model.diffusion_model.")).unwrap();
    assert_eq!((config.channels, config.input, config.output), (64, 4, 4));
    assert_eq!((config.context, config.label, config.linear_projection), (Some(96), None, false));
    assert_eq!((config.depths(), config.middle, config.halvings()), (vec![1, 1, 0], 1, 2));
    let up: Vec<_> = config.up.iter().map(|block| (block.width, block.depth, block.double)).collect();
    assert_eq!(up[..3], [(192, 0, false), (192, 0, true), (128, 1, false)]);
    assert_eq!(config.heads(192), 8);
}

#[test]
fn refuses_values_that_do_not_fit() {
    let unet = UNet::load(&Golden::open("unet_narrow").weights().part("model.diffusion_model.")).unwrap();
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let (x, time, prompt) = (zeros(&[2, 4, 8, 8]), zeros(&[2]), zeros(&[2, 77, 160]));
    let message = |x: &Tensor, time: &Tensor, prompt: &Tensor, label: Option<&Tensor>| {
        unet.forward(x, time, prompt, label).unwrap_err().to_string()
    };
    assert_eq!(
        message(&zeros(&[2, 9, 8, 8]), &time, &prompt, None),
        "UNet (latent): expects [batch, 4, height, width], found a tensor of shape [2, 9, 8, 8]"
    );
    assert!(message(&zeros(&[2, 4, 0, 8]), &time, &prompt, None).contains("[2, 4, 0, 8]"));
    assert!(message(&x, &zeros(&[3]), &prompt, None).starts_with("UNet (timesteps)"));
    assert!(message(&x, &time, &zeros(&[2, 77, 768]), None).starts_with("UNet (prompt)"));
    assert!(message(&x, &time, &prompt, Some(&time)).starts_with("UNet (label): expects none"));
}

#[test]
fn a_file_that_lacks_a_tensor_is_told_which() {
    let mut golden = Golden::open("unet_narrow");
    golden.tensors.remove("model.diffusion_model.middle_block.1.norm.weight");
    let Err(error) = UNet::load(&golden.weights().part("model.diffusion_model.")) else { panic!("loaded") };
    let message = error.to_string();
    assert!(message.contains("tensor `model.diffusion_model.middle_block.1.norm.weight` is missing"), "{message}");
    assert!(
        message.contains("hint: the nearest names are `model.diffusion_model.middle_block.1.norm.bias`"),
        "{message}"
    );
}

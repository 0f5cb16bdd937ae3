//! The same networks through the kernels and elsewhere: one body for candle's operations and for GPUs.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use crate::adapters::{Boundary, Excess, Names, OnPara, Para, Part, Stage};
use crate::nn::{Compute, Layers as _, layers};
use crate::testing::{Golden, elsewhere, relative_error, value};
use crate::unet::UNet;
use crate::vae::Vae;

fn unet(compute: &Compute) -> UNet {
    UNet::load(&Golden::open("unet_narrow").weights().part("model.diffusion_model.").on(compute)).unwrap()
}

/// What the network says, and the gradients by the latent and by the prompt.
fn said(unet: &UNet) -> [Tensor; 3] {
    let x = Var::from_tensor(&value("x", &[2, 4, 8, 12], 1.5)).unwrap();
    let context = Var::from_tensor(&value("context", &[2, 77, 160], 1.5)).unwrap();
    let y = unet.forward(&x, &value("timesteps", &[2], 400.0).affine(1.0, 500.0).unwrap(), &context, None).unwrap();
    let gradients = (&y * value("weights", y.dims(), 1.0)).unwrap().sum_all().unwrap().backward().unwrap();
    let of = |var: &Var| gradients.get(var).unwrap().clone();
    [y.detach(), of(&x), of(&context)]
}

fn assert_alike(found: &[Tensor], expected: &[Tensor], place: &str, tolerance: f64) {
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(found.device().is_cpu() && found.dtype() == expected.dtype(), "{place}: results are f32 on the CPU");
        let error = relative_error(found, expected);
        println!("{place}, {index}: relative error {error:.1e}");
        assert!(error < tolerance, "{place}, {index}: {error:.1e}");
    }
}

#[test]
fn a_unet_and_its_gradients_agree() {
    let expected = said(&unet(&Compute::default()));
    for (place, compute, tolerance) in elsewhere() {
        assert_alike(&said(&unet(&compute)), &expected, &place, tolerance);
    }
}

#[test]
fn an_autoencoder_agrees() {
    let run = |compute: &Compute| {
        let vae = Vae::load(&Golden::open("vae").weights().part("first_stage_model.").on(compute)).unwrap();
        let image = (value("image", &[1, 3, 32, 40], 0.5) + 0.5).unwrap();
        [vae.encode(&image).unwrap(), vae.decode(&value("latent", &[1, 4, 4, 6], 2.0)).unwrap()]
    };
    let expected = run(&Compute::default());
    for (place, compute, tolerance) in elsewhere() {
        assert_alike(&run(&compute), &expected, &place, tolerance);
    }
}

/// A PaRa of two directions on every layer, beside the weights and worked into them.
#[test]
fn adapters_agree_beside_the_weights_and_in_them() {
    let run = |compute: &Compute| {
        let unet = unet(compute);
        let names = Names::of(&unet, None);
        let stage = |(name, shape): (String, Vec<usize>)| {
            let b = value(&name, &[shape[0], 2.min(shape[0] - 1)], 1.0);
            (name.clone(), Stage::new(&name, &b, None).unwrap())
        };
        let para = Para::new(&names, layers(&unet).into_iter().map(stage), BTreeMap::new()).unwrap();
        let on = OnPara { strength: 0.7, boundary: Boundary::NONE, excess: Excess::Ignore, subset: None };
        let beside = para.place(&names, &unet, &on).unwrap().attach(Part::Unet, &unet).unwrap();
        let mut baked = beside.clone();
        baked.visit(&mut |weight| *weight = weight.baked().unwrap());
        [said(&beside), said(&baked)].concat()
    };
    let expected = run(&Compute::default());
    assert_alike(&expected[3..], &expected[..3], "baked", 1e-5);
    for (place, compute, tolerance) in elsewhere() {
        assert_alike(&run(&compute), &expected, &place, tolerance);
    }
}

#[cfg(feature = "flash-attn")]
mod flash {
    use candle_core::DType;

    use super::*;
    use crate::nn::{Mask, attention, flash, give};

    /// Heads of Stable Diffusion 1.5, of SDXL and of their autoencoder, a prompt's 77 keys, a text's mask.
    const SHAPES: [([usize; 5], Mask); 6] = [
        ([2, 256, 256, 8, 40], Mask::None),
        ([2, 256, 77, 8, 80], Mask::None),
        ([1, 65, 65, 8, 160], Mask::None),
        ([2, 130, 77, 10, 64], Mask::None),
        ([1, 100, 100, 1, 512], Mask::None),
        ([2, 77, 77, 12, 64], Mask::Causal),
    ];

    #[test]
    fn it_agrees_with_the_kernels_and_leaves_gradients_to_candle() {
        let in_bf16 = |compute: &Compute| compute.device().is_cuda() && compute.dtype() == DType::BF16;
        for (place, compute, _) in elsewhere().into_iter().filter(|(_, compute, _)| in_bf16(compute)) {
            for ([batch, queries, keys, heads, dim], mask) in SHAPES {
                let drawn = |key: &str, tokens: usize, scale: f64| {
                    let rounded = value(key, &[batch, tokens, heads * dim], scale).to_dtype(DType::BF16).unwrap();
                    (rounded.to_dtype(DType::F32).unwrap(), compute.take(&rounded).unwrap())
                };
                let ((q, there_q), (k, there_k)) = (drawn("q", queries, 3.0), drawn("k", keys, 1.0));
                let (v, there_v) = drawn("v", keys, 1.0);
                let (place, causal) = (format!("{place}, {heads} heads of {dim}"), mask == Mask::Causal);
                assert!(flash::takes(&there_q, &there_k, &there_v, heads, causal), "{place}");
                let expected = attention(&q, &k, &v, heads, mask).unwrap();
                let found = give(&attention(&there_q, &there_k, &there_v, heads, mask).unwrap()).unwrap();
                // Weights of values are rounded to 8 bits there, and so is what comes out.
                assert_alike(&[found], &[expected], &place, 1e-2);
                let trained = Var::from_tensor(&there_q).unwrap();
                assert!(!flash::takes(&trained, &there_k, &there_v, heads, causal), "{place}");
                let gradients = attention(&trained, &there_k, &there_v, heads, mask).unwrap().backward().unwrap();
                assert!(gradients.get(&trained).is_some(), "{place}: a gradient by the queries");
            }
        }
    }
}

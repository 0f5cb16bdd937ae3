//! Every kernel against its plain formulation: the same values, the same gradients, and gradients that are the slope.

use candle_core::{Tensor, Var};

use super::super::upsample_nearest;
use super::super::weight::{Geometry, Weight};
use super::super::{
    Conv2d, GroupNorm, LayerNorm, Linear, Mask, Weights, attention, geglu, gelu, plain, quick_gelu, silu,
};
use crate::error::Result;
use crate::testing::{drawn_file, relative_error, value};

/// A function of some tensors.
type Function<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

/// `⟨f(x), weights⟩` and its gradients by each argument.
fn slopes(f: Function<'_>, args: &[Tensor]) -> (f64, Vec<Tensor>) {
    let vars: Vec<Var> = args.iter().map(|arg| Var::from_tensor(arg).unwrap()).collect();
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let y = f(&tensors).unwrap();
    let loss = (&y * value("weights", y.dims(), 1.0)).unwrap().sum_all().unwrap();
    let gradients = loss.backward().unwrap();
    let gradient = |var: &Var| gradients.get(var).expect("every argument has a gradient").clone();
    (loss.to_scalar::<f32>().unwrap().into(), vars.iter().map(gradient).collect())
}

/// Compares values, gradients and the slope along one direction.
fn compare(name: &str, fused: Function<'_>, plain: Function<'_>, args: &[Tensor]) {
    let ((_, found), (_, expected)) = (slopes(fused, args), slopes(plain, args));
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let error = relative_error(found, expected);
        assert!(error < 5e-6, "{name}: gradient {index} off by {error:.1e}");
    }
    compare_slope(name, fused, plain, args);
}

/// Compares values, and the gradients with the slope along one direction.
fn compare_slope(name: &str, fused: Function<'_>, plain: Function<'_>, args: &[Tensor]) {
    let error = relative_error(&fused(args).unwrap(), &plain(args).unwrap());
    assert!(error < 2e-6, "{name}: value off by {error:.1e}");
    let mut slope = 0.0;
    let (mut ahead, mut behind) = (args.to_vec(), args.to_vec());
    for (index, gradient) in slopes(fused, args).1.iter().enumerate() {
        // f32 leaves three digits of a difference this small.
        let direction = value(&format!("direction {index}"), gradient.dims(), 1e-2);
        slope += (gradient * &direction).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        ahead[index] = (&ahead[index] + &direction).unwrap();
        behind[index] = (&behind[index] - &direction).unwrap();
    }
    let difference = (slopes(fused, &ahead).0 - slopes(fused, &behind).0) / 2.0;
    let error = (f64::from(slope) - difference).abs() / difference.abs().max(1e-2);
    assert!(error < 2e-2, "{name}: slope {slope}, difference {difference}");
}

/// A file of one layer called `layer`.
fn weights(tensors: &[(&str, &[usize])]) -> Weights {
    let tensors = tensors.iter().map(|(name, shape)| (format!("layer.{name}"), shape.to_vec())).collect();
    Weights::from_bytes("layer.safetensors", drawn_file(&tensors)).unwrap().at("layer")
}

fn plain_layer(x: &Tensor, weight: &Weight, bias: &Tensor) -> Result<Tensor> {
    Ok(plain::product(x, &weight.base()?, weight.geometry())?.broadcast_add(bias)?)
}

#[test]
fn linear_layers() {
    let file = weights(&[("weight", &[70, 24]), ("bias", &[70])]);
    let linear = Linear::load(&file, 24, 70).unwrap();
    let plain = |x: &Tensor| plain_layer(x, linear.weight(), linear.bias().unwrap());
    let (x, residual) = (value("x", &[2, 9, 24], 1.0), value("residual", &[2, 9, 70], 1.0));
    compare("linear", &|x| linear.forward(&x[0]), &|x| plain(&x[0]), std::slice::from_ref(&x));
    let added = |x: &[Tensor]| Ok((plain(&x[0])? + &x[1])?);
    compare("linear and residual", &|x| linear.forward_add(&x[0], &x[1]), &added, &[x, residual]);
}

#[test]
fn convolutions() {
    let conv = |kernel, stride, before, after| (kernel, Geometry::Conv2d { stride, before, after });
    for (kernel, geometry) in
        [conv(3, 1, 1, 1), conv(3, 2, 1, 1), conv(3, 2, 0, 1), conv(1, 1, 0, 0), conv(5, 1, 2, 2), conv(2, 3, 1, 0)]
    {
        let file = weights(&[("weight", &[20, 12, kernel, kernel]), ("bias", &[20])]);
        let conv = Conv2d::load_with(&file, 12, 20, kernel, geometry).unwrap();
        for (height, width) in [(8, 8), (7, 10), (5, 6)] {
            let name = format!("{kernel} {geometry:?} on {height} x {width}");
            let Geometry::Conv2d { stride, before, after } = geometry else { unreachable!("they are convolutions") };
            let left_over = |side: usize| (side + before + after - kernel) % stride;
            // Where the stride leaves over other numbers of rows and columns, candle's own gradient is an error.
            let compare = if left_over(height) == left_over(width) { compare } else { compare_slope };
            let x = value("x", &[2, height, width, 12], 1.0);
            let plain = |x: &Tensor| plain_layer(x, conv.weight(), conv.bias());
            compare(&name, &|x| conv.forward(&x[0]), &|x| plain(&x[0]), std::slice::from_ref(&x));
            let shift = value("shift", &[2, 20], 1.0);
            let shifted = |x: &[Tensor]| Ok(plain(&x[0])?.broadcast_add(&x[1].unsqueeze(1)?.unsqueeze(1)?)?);
            compare(&name, &|x| conv.forward_shift(&x[0], &x[1]), &shifted, &[x.clone(), shift]);
            let residual = value("residual", plain(&x).unwrap().dims(), 1.0);
            let added = |x: &[Tensor]| Ok((plain(&x[0])? + &x[1])?);
            compare(&name, &|x| conv.forward_add(&x[0], &x[1]), &added, &[x, residual]);
        }
    }
}

#[test]
fn norms() {
    let file = weights(&[("weight", &[64]), ("bias", &[64])]);
    let (scale, shift) = (file.tensor("weight", &[64]).unwrap(), file.tensor("bias", &[64]).unwrap());
    let layer = LayerNorm::load(&file, 64, 1e-5).unwrap();
    let x = value("x", &[2, 7, 64], 2.0);
    let plain_layer = |x: &[Tensor]| plain::layer_norm(&x[0], &scale, &shift, 1e-5);
    compare("layer norm", &|x| layer.forward(&x[0]), &plain_layer, &[x]);
    let group = GroupNorm::load(&file, 64, 1e-6).unwrap();
    let x = value("x", &[2, 5, 6, 64], 2.0);
    let plain_group = |x: &Tensor| plain::group_norm(x, 32, &scale, &shift, 1e-6);
    compare("group norm", &|x| group.forward(&x[0]), &|x| plain_group(&x[0]), std::slice::from_ref(&x));
    let activated = |x: &[Tensor]| plain::silu(&plain_group(&x[0])?);
    compare("group norm and silu", &|x| group.forward_silu(&x[0]), &activated, &[x]);
}

#[test]
fn attentions() {
    for (queries, keys, heads, mask) in [(5, 9, 2, Mask::None), (20, 20, 4, Mask::Causal), (3, 300, 1, Mask::None)] {
        let q = value("q", &[2, queries, 16], 3.0);
        let (k, v) = (value("k", &[2, keys, 16], 1.0), value("v", &[2, keys, 16], 1.0));
        let causal = mask == Mask::Causal;
        let name = format!("attention of {queries} to {keys}");
        compare(
            &name,
            &|x| attention(&x[0], &x[1], &x[2], heads, mask),
            &|x| plain::attention(&x[0], &x[1], &x[2], heads, causal),
            &[q, k, v],
        );
    }
}

#[test]
fn nonlinearities() {
    let x = value("x", &[3, 14], 4.0);
    compare("silu", &|x| silu(&x[0]), &|x| plain::silu(&x[0]), std::slice::from_ref(&x));
    compare("gelu", &|x| gelu(&x[0]), &|x| plain::gelu(&x[0]), std::slice::from_ref(&x));
    compare("quick gelu", &|x| quick_gelu(&x[0]), &|x| plain::quick_gelu(&x[0]), std::slice::from_ref(&x));
    compare("geglu", &|x| geglu(&x[0]), &|x| plain::geglu(&x[0]), &[x]);
}

#[test]
fn enlargement() {
    let x = value("x", &[2, 3, 4, 5], 1.0);
    let double = |x: &[Tensor]| plain::upsample_nearest(&x[0], 6, 8);
    compare("twice the size", &|x| upsample_nearest(&x[0], 6, 8), &double, std::slice::from_ref(&x));
    let odd = upsample_nearest(&x, 5, 7).unwrap();
    assert_eq!(relative_error(&odd, &plain::upsample_nearest(&x, 5, 7).unwrap()), 0.0);
}

#[test]
fn a_view_is_read_as_what_it_shows() {
    let x = value("x", &[2, 14, 6], 1.0);
    let turned = x.transpose(1, 2).unwrap();
    let contiguous = turned.contiguous().unwrap();
    assert_eq!(relative_error(&silu(&turned).unwrap(), &silu(&contiguous).unwrap()), 0.0);
    let part = x.narrow(1, 3, 5).unwrap();
    assert_eq!(relative_error(&silu(&part).unwrap(), &silu(&part.contiguous().unwrap()).unwrap()), 0.0);
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let linear = Linear::load(&weights(&[("weight", &[8, 6]), ("bias", &[8])]), 6, 8).unwrap();
    let x = value("x", &[2, 6], 1.0);
    assert_eq!(
        linear.forward_add(&x, &x).unwrap_err().to_string(),
        "layer (added): expects [2, 8], found a tensor of shape [2, 6]"
    );
    assert!(linear.forward(&value("x", &[2, 5], 1.0)).is_err());
    let conv = Conv2d::load(&weights(&[("weight", &[8, 6, 3, 3]), ("bias", &[8])]), 6, 8, 3).unwrap();
    let picture = value("x", &[1, 4, 4, 6], 1.0);
    assert!(conv.forward(&picture.narrow(3, 0, 5).unwrap()).is_err());
    assert!(conv.forward_shift(&picture, &x).is_err());
    assert!(conv.forward_add(&picture, &picture).is_err());
    assert!(geglu(&value("x", &[2, 5], 1.0)).is_err());
    let k = value("k", &[1, 3, 8], 1.0);
    assert!(attention(&k, &k, &k, 3, Mask::None).is_err() && attention(&k, &k, &k, 0, Mask::None).is_err());
}

//! Files as they should be and as they should not.

use std::collections::BTreeMap;

use candle_core::{DType, Device};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};

use super::super::{Adapter, Conv2d, Embedding, Geometry, GroupNorm, Kept, Linear, Weight};
use super::*;
use crate::error::FileFault;
use crate::testing::drawn_file;

fn drawn(tensors: &[(&str, &[usize])]) -> Weights {
    let tensors: BTreeMap<String, Vec<usize>> =
        tensors.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect();
    Weights::from_bytes("model.safetensors", drawn_file(&tensors)).unwrap()
}

/// A file with the numbers 0.5, -2 and 300 in one type.
fn stored(dtype: Dtype) -> Weights {
    let numbers = [0.5f64, -2.0, 300.0];
    let bytes: Vec<u8> = match dtype {
        Dtype::F16 => numbers.iter().flat_map(|&x| f16::from_f64(x).to_le_bytes()).collect(),
        Dtype::BF16 => numbers.iter().flat_map(|&x| bf16::from_f64(x).to_le_bytes()).collect(),
        Dtype::F32 => numbers.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect(),
        Dtype::F64 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        _ => vec![0; 24],
    };
    let view = TensorView::new(dtype, vec![3], &bytes).unwrap();
    Weights::from_bytes("model.safetensors", safetensors::serialize([("x", view)], None).unwrap()).unwrap()
}

#[test]
fn every_type_of_number_is_read() {
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64] {
        let x = stored(dtype).tensor("x", &[3]).unwrap();
        assert_eq!(x.to_vec1::<f32>().unwrap(), [0.5, -2.0, 300.0], "{dtype:?}");
    }
    assert_eq!(
        stored(Dtype::I64).tensor("x", &[3]).unwrap_err().to_string(),
        "`model.safetensors`: tensor `x` is stored as I64\nhint: convert the file to f16, bf16 or f32"
    );
    let half = stored(Dtype::F32).on(&Compute::plain(&Device::Cpu, DType::F16)).tensor("x", &[3]).unwrap();
    assert_eq!(half.dtype(), DType::F16);
}

/// Adds 0.001 to every number of a weight.
struct Nudge;

impl Adapter for Nudge {
    fn weight(&self, base: &Tensor) -> Result<Tensor> {
        Ok(base.affine(1.0, 0.001)?)
    }

    fn output(&self, _: Geometry, x: &Tensor, y: Tensor) -> Result<Tensor> {
        Ok(y.broadcast_add(&x.sum_keepdim(x.rank() - 1)?.affine(0.001, 0.0)?)?)
    }
}

/// What a layer of a text encoder multiplies with, in ComfyUI as here: the file's number in half precision, and in half precision what
/// an adapter makes of that.
#[test]
fn weights_in_halves_are_rounded_and_so_is_what_adapters_make_of_them() {
    let round = |x: f32| f16::from_f32(x).to_f32();
    let weights = drawn(&[("proj.weight", &[3, 2]), ("proj.bias", &[3])]).at("proj");
    let stored: Vec<f32> = weights.tensor("weight", &[3, 2]).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let identity = Tensor::new(&[[1.0_f32, 0.0], [0.0, 1.0]], &Device::Cpu).unwrap();
    // Column by column: what the identity is mapped to.
    let seen = |layer: &Linear| -> Vec<f32> {
        layer.weight().forward(&identity).unwrap().t().unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let expected = |make: &dyn Fn(f32) -> f32| stored.iter().map(|&x| make(x)).collect::<Vec<f32>>();
    let layer = Linear::load(&weights.keeping(Kept::Half), 2, 3).unwrap();
    assert_eq!(seen(&layer), expected(&round));
    assert_ne!(seen(&layer), stored);
    let bias = layer.bias().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(bias, bias.iter().map(|&x| round(x)).collect::<Vec<f32>>());

    let nudged = |weight: &Weight, times: usize| {
        (0..times).fold(weight.clone(), |weight, _| weight.with(Arc::new(Nudge)).unwrap())
    };
    let product = |weight: &Weight| -> Vec<f32> {
        weight.forward(&identity).unwrap().t().unwrap().flatten_all().unwrap().to_vec1().unwrap()
    };
    let twice = nudged(layer.weight(), 2);
    assert_eq!(product(&twice), expected(&|x| round((round(x) + 0.001) + 0.001)), "rounded once, after both");
    assert_eq!((twice.history().count(), twice.is_changed(), twice.adapters().len()), (2, true, 0));
    assert_eq!(product(&nudged(layer.weight(), 1).baked().unwrap()), expected(&|x| round(round(x) + 0.001)));
    assert_eq!(product(layer.weight()), expected(&round), "the layer that it was made of is as it was");
    let beside = nudged(Linear::load(&weights, 2, 3).unwrap().weight(), 1);
    assert_eq!(beside.adapters().len(), 1);
}

/// The values that torch gives these bytes.
fn eight_bits(scale: Option<f32>, marked: bool) -> Weights {
    let numbers = [0x38, 0x40, 0xb8, 0x30];
    let scale = scale.map(f32::to_le_bytes);
    let mut views = vec![("proj.weight", TensorView::new(Dtype::F8_E4M3, vec![2, 2], &numbers).unwrap())];
    if let Some(scale) = &scale {
        views.push(("proj.scale_weight", TensorView::new(Dtype::F32, vec![1], scale).unwrap()));
    }
    if marked {
        views.push(("scaled_fp8", TensorView::new(Dtype::F8_E4M3, vec![0], &[]).unwrap()));
    }
    Weights::from_bytes("model.safetensors", safetensors::serialize(views, None).unwrap()).unwrap()
}

#[test]
fn eight_bit_weights_have_a_scale_where_their_file_says_so() {
    let numbers = |weights: &Weights| weights.tensor("proj.weight", &[2, 2]).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(numbers(&eight_bits(None, false)), [[1.0, 2.0], [-1.0, 0.5]]);
    let scaled = eight_bits(Some(3.0), true);
    assert_eq!(numbers(&scaled), [[3.0, 6.0], [-3.0, 1.5]]);
    assert_eq!(scaled.unread(), [] as [String; 0]);
    let error = eight_bits(None, true).tensor("proj.weight", &[2, 2]).unwrap_err();
    assert!(matches!(&error, Error::MissingTensor { name, .. } if name == "proj.scale_weight"), "{error}");
}

#[test]
fn tensors_are_renamed_cut_and_turned_without_a_copy() {
    let weights = drawn(&[("a.in.weight", &[6, 2]), ("a.turn", &[2, 3]), ("b", &[1])]);
    let other = weights.part("a.").renamed(|name| match name {
        "in.weight" => {
            (0..3).map(|third| Renamed { part: (3, third), ..Renamed::whole(format!("{third}.weight")) }).collect()
        }
        "turn" => vec![Renamed { transposed: true, ..Renamed::whole("turned.weight") }],
        _ => Vec::new(),
    });
    assert_eq!(other.names().collect::<Vec<_>>(), ["0.weight", "1.weight", "2.weight", "turned.weight"]);
    let whole = weights.tensor("a.in.weight", &[6, 2]).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(other.tensor("1.weight", &[2, 2]).unwrap().to_vec2::<f32>().unwrap(), whole[2..4]);
    let turned = other.tensor("turned.weight", &[3, 2]).unwrap();
    let stored = weights.tensor("a.turn", &[2, 3]).unwrap();
    assert_eq!(turned.t().unwrap().to_vec2::<f32>().unwrap(), stored.to_vec2::<f32>().unwrap());
    let bytes: Vec<u8> =
        turned.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().flat_map(|x| x.to_le_bytes()).collect();
    assert_eq!(*other.bytes("turned.weight").unwrap(), *bytes);
    let joined = Weights::joined("both", &[weights.part("b"), other]);
    assert_eq!(joined.names().count(), 5);
    assert_eq!(weights.unread(), ["b"]);
}

#[test]
fn names_are_found_below_their_prefix() {
    let weights = drawn(&[("unet.in.0.bias", &[2]), ("unet.in.0.weight", &[2, 3]), ("vae.bias", &[1])]);
    let layer = weights.part("unet.").at("in").at(0);
    assert_eq!(layer.layer(), "in.0");
    assert_eq!(layer.key("weight"), "unet.in.0.weight");
    assert_eq!(layer.names().collect::<Vec<_>>(), ["bias", "weight"]);
    assert_eq!(layer.shape("weight"), Some(&[2, 3][..]));
    assert!(!layer.contains("in.0.weight"));
    Linear::load(&layer, 3, 2).unwrap();
    assert_eq!(weights.unread(), ["vae.bias"]);
    assert_eq!(weights.metadata()["modelspec.title"], "drawn");
}

#[test]
fn a_tensor_that_is_missing_or_misshapen_is_named() {
    let weights = drawn(&[("proj.bias", &[2]), ("proj.weight", &[2, 3])]);
    let message = |result: Result<Linear>| result.map(|_| ()).unwrap_err().to_string();
    assert_eq!(
        message(Linear::load(&weights.at("proj"), 4, 2)),
        "`model.safetensors`: tensor `proj.weight` has shape [2, 3], its layer needs [2, 4] or [2, 4, 1, 1]"
    );
    assert_eq!(
        message(Linear::load(&weights.at("prog"), 3, 2)),
        "`model.safetensors`: tensor `prog.bias` is missing\nhint: the nearest names are `proj.bias`"
    );
    assert!(Conv2d::load(&weights.at("proj"), 3, 2, 3).is_err());
    let empty = drawn(&[("norm.bias", &[0]), ("norm.weight", &[0])]);
    assert!(GroupNorm::load(&empty.at("norm"), 0, 1e-5).is_err());
    let odd = drawn(&[("norm.bias", &[40]), ("norm.weight", &[40])]);
    assert!(GroupNorm::load(&odd.at("norm"), 40, 1e-5).is_err());
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let folder = std::env::temp_dir().join(format!("paraflow-weights-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let fault = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        let Err(Error::BadFile { file, fault }) = Weights::open(&path) else { panic!("{name} was opened") };
        assert_eq!(file, path.display().to_string());
        fault
    };
    let whole = drawn_file(&BTreeMap::from([("x".to_owned(), vec![4])]));
    assert_eq!(fault("empty.safetensors", b""), FileFault::Empty);
    assert_eq!(fault("model.ckpt", b"PK\x03\x04archive/data.pkl"), FileFault::Pickle);
    assert_eq!(fault("page.safetensors", b"<!DOCTYPE html>"), FileFault::WebPage);
    assert!(matches!(fault("cut.safetensors", &whole[..whole.len() - 3]), FileFault::OutOfRange { .. }));
    assert!(matches!(fault("cut short.safetensors", &whole[..20]), FileFault::HeaderCut { .. }));
    let path = folder.join("whole.safetensors");
    std::fs::write(&path, &whole).unwrap();
    let mapped = Weights::open(&path).unwrap().tensor("x", &[4]).unwrap();
    let held = Weights::from_bytes("x", whole).unwrap().tensor("x", &[4]).unwrap();
    assert_eq!(mapped.to_vec1::<f32>().unwrap(), held.to_vec1::<f32>().unwrap());
    for path in [folder.clone(), folder.join("nothing.safetensors")] {
        assert!(matches!(Weights::open(path), Err(Error::Unreadable { .. })));
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn what_was_let_go_of_is_read_again() {
    let path = std::env::temp_dir().join(format!("paraflow-forgotten-{}.safetensors", std::process::id()));
    std::fs::write(&path, drawn_file(&BTreeMap::from([("x".to_owned(), vec![300, 1000])]))).unwrap();
    let weights = Weights::open(&path).unwrap();
    let read = || weights.tensor("x", &[300, 1000]).unwrap().to_vec2::<f32>().unwrap();
    let before = read();
    weights.claim("x", &[&[300, 1000]]).unwrap().release();
    assert!(read() == before);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn an_embedding_reads_the_rows_it_is_asked_for() {
    let weights = drawn(&[("tokens.weight", &[5, 3])]);
    let table = weights.tensor("tokens.weight", &[5, 3]).unwrap().to_vec2::<f32>().unwrap();
    let embedding = Embedding::load(&weights.at("tokens"), 5, 3).unwrap();
    let rows = embedding.rows(&[4, 0, 4]).unwrap().to_vec2::<f32>().unwrap();
    assert_eq!(rows, [table[4].clone(), table[0].clone(), table[4].clone()]);
    assert!(embedding.rows(&[5]).is_err());
    assert_eq!(embedding.rows(&[]).unwrap().dims(), [0, 3]);
}

//! Files of adapters, whole and broken: what is read, and how what is not is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde_json::json;

use super::*;
use crate::error::Error;
use crate::nn::Weights;
use crate::testing::value;

const LAYER: &str = "lora_unet_mid_block_resnets_1_conv2";

fn opened(tensors: &[(&str, Tensor)], header: &[(&str, &str)]) -> Weights {
    let tensors: Vec<_> =
        tensors.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone(), Store::F32)).collect();
    let header: BTreeMap<String, String> =
        header.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    reopened(write(&tensors, &header).unwrap())
}

fn reopened(bytes: Vec<u8>) -> Weights {
    Weights::from_bytes("x.safetensors", Arc::<[u8]>::from(bytes)).unwrap()
}

fn fault(error: Error) -> Fault {
    match error {
        Error::Adapter(fault) => fault,
        other => panic!("{other}"),
    }
}

fn refused(tensors: &[(&str, Tensor)], header: &[(&str, &str)]) -> Fault {
    fault(Para::read(&opened(tensors, header), false).err().expect("it is refused"))
}

fn key(end: &str) -> String {
    format!("{LAYER}.{end}")
}

/// `Q Qᵀ`.
fn projector(stage: &Stage) -> Tensor {
    let q = stage.q().to_dtype(DType::F64).unwrap();
    q.matmul(&q.t().unwrap().contiguous().unwrap()).unwrap()
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

#[test]
fn directions_survive_a_file_of_either_precision() {
    let stages = ["a", "b"].map(|name| Stage::new(LAYER, &value(name, &[64, 4], 1.0), None).unwrap());
    let energy = vec![4.0, 3.0, 2.0, 1.0];
    let single = Stage::new(LAYER, &value("c", &[32, 4], 1.0), Some(energy.clone())).unwrap();
    let other = "lora_unet_mid_block_resnets_0_conv1";
    let para = Para {
        layers: [(LAYER.to_owned(), stages.to_vec()), (other.to_owned(), vec![single])].into(),
        metadata: [("para.trigger".to_owned(), "sks".to_owned())].into(),
    };
    for (store, bound) in [(Store::F32, 1e-6), (Store::F16, 5e-4)] {
        let bytes = para.to_file(store).unwrap();
        assert_eq!(bytes, para.to_file(store).unwrap(), "the same content is the same bytes");
        let read = Para::read(&reopened(bytes), false).unwrap();
        assert!(read.unknown.is_empty() && read.notes.is_empty());
        for (stage, found) in stages.iter().zip(&read.para.layers[LAYER]) {
            // The greatest eigenvalue of a symmetric matrix is its spectral norm.
            let difference = (projector(stage) - projector(found)).unwrap();
            let (values, _) = crate::eigen::symmetric(difference.flatten_all().unwrap().to_vec1().unwrap(), 64);
            let error = values.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
            assert!(error < bound, "{store:?}: {error:.1e}");
        }
        assert_eq!(read.para.layers[other][0].energy(), Some(&energy[..]));
        assert_eq!((read.para.depth(), read.para.metadata["para.trigger"].as_str()), (2, "sks"));
    }
}

#[test]
fn broken_files_are_told_by_what_is_wrong() {
    let q = value("q", &[16, 2], 1.0);
    let (first, second) = (key("para_q"), key("para_q.2"));
    assert!(matches!(
        refused(&[(&first, q.clone())], &[("para.version", "2")]),
        Fault::UnsupportedVersion { known: 1, .. }
    ));
    assert!(Para::read(&opened(&[(&first, q.clone())], &[("para.version", "1.3")]), false).is_ok());
    let gap = refused(&[(&first, q.clone()), (&second, q.clone())], &[]).to_string();
    assert!(gap.contains("its stage 1 is missing"), "{gap}");
    let wide = refused(&[(&first, value("w", &[2, 2], 1.0))], &[]);
    assert!(matches!(wide, Fault::RankTooLarge { rank: 2, outputs: 2, .. }), "{wide}");
    let flat = refused(&[(&first, value("f", &[16], 1.0))], &[]).to_string();
    assert!(flat.contains("directions are [out, rank]"), "{flat}");
    let mut numbers: Vec<f32> = q.flatten_all().unwrap().to_vec1().unwrap();
    numbers[5] = f32::NAN;
    let holed = Tensor::from_vec(numbers, (16, 2), q.device()).unwrap();
    assert!(matches!(refused(&[(&first, holed)], &[]), Fault::NonFinite { index: 5, .. }));
    let lora = refused(&[(&key("lora_up.weight"), q)], &[]);
    assert!(lora.to_string().contains("it holds a LoRA, not a PaRa"), "{lora}");
}

#[test]
fn dependent_columns_are_refused_or_repaired() {
    let column = value("c", &[16, 1], 1.0);
    let twice = Tensor::cat(&[&column, &(&column * -2.0).unwrap()], 1).unwrap();
    let name = key("para_q");
    assert!(matches!(refused(&[(&name, twice.clone())], &[]), Fault::RankDeficient { column: 1, .. }));
    let read = Para::read(&opened(&[(&name, twice)], &[]), true).unwrap();
    assert_eq!(read.para.rank(), 1);
    assert!(read.notes[0].starts_with("1 dependent columns"), "{:?}", read.notes);
}

#[test]
fn every_key_is_a_part_or_a_row_of_the_table() {
    let q = value("q", &[16, 2], 1.0);
    let (energy, alone) = (value("e", &[2], 1.0), "lora_unet_conv_in.para_energy");
    let file = opened(&[(&key("para_q"), q.clone()), (alone, energy), ("stray", q.clone())], &[]);
    let mut unknown: Vec<_> = Para::read(&file, false).unwrap().unknown.into_iter().map(|row| row.name).collect();
    unknown.sort();
    assert_eq!(unknown, [alone, "stray"]);
    let (up, down) = (value("u", &[16, 2], 1.0), value("d", &[2, 8], 1.0));
    let lora = |more: Vec<(&str, Tensor)>| {
        let whole = [(key("lora_up.weight"), up.clone()), (key("lora_down.weight"), down.clone())];
        let mut tensors: Vec<(&str, Tensor)> = whole.iter().map(|(name, x)| (name.as_str(), x.clone())).collect();
        tensors.extend(more);
        LoraModel::read(&opened(&tensors, &[]))
    };
    let (read, unknown) = lora(vec![("stray", q.clone()), ("x.boft_blocks", q.clone())]).unwrap();
    assert_eq!((read.modules.len(), unknown.len()), (1, 2));
    // Half a module among whole ones is a row as well; alone it is an error.
    let (read, unknown) = lora(vec![("lora_unet_x.lora_up.weight", q.clone())]).unwrap();
    assert_eq!((read.modules.len(), unknown[0].name.as_str()), (1, "lora_unet_x"));
    let alone = LoraModel::read(&opened(&[("lora_unet_x.lora_up.weight", q)], &[]));
    let error = fault(alone.err().unwrap()).to_string();
    assert!(error.contains("it has an upper half and no lower one"), "{error}");
}

#[test]
fn peft_s_folders_are_read_if_they_are_projections() {
    let name = "base_model.model.mid_block.attentions.0.proj_in.deft_P";
    let file = opened(&[(name, value("p", &[16, 2], 1.0))], &[]);
    let read = |config: serde_json::Value| Para::read_peft(&file, &config, false);
    let good = read(json!({"para": true, "decomposition_method": "qr"})).unwrap();
    assert_eq!(good.para.rank(), 2);
    let names = super::tests::names(&super::tests::sd1());
    let layer = good.para.layers.keys().next().unwrap();
    assert_eq!(names.find(layer).unwrap().1.name, "middle_block.1.proj_in");
    for (config, why) in [
        (json!({"para": true}), "`relu`, which is no projection"),
        (json!({"para": true, "decomposition_method": "relu"}), "`relu`, which is no projection"),
        (json!({"decomposition_method": "qr"}), "does not say `para: true`"),
    ] {
        let error = fault(read(config).err().unwrap()).to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn merges_are_what_they_should_be() {
    let para = |names: [&str; 1], rank: usize| Para {
        layers: names
            .map(|name| (LAYER.to_owned(), vec![Stage::new(name, &value(name, &[32, rank], 1.0), None).unwrap()]))
            .into(),
        metadata: BTreeMap::new(),
    };
    let (a, b) = (para(["a"], 2), para(["b"], 3));
    let merged = |how, boundary, excess| merge(&[&a, &b], how, None, boundary, excess);
    let union = merged(Merge::Union, Boundary::NONE, Excess::Refuse).unwrap();
    let [stage] = &union.layers[LAYER][..] else { panic!("one projection") };
    assert_eq!(stage.rank(), 5);
    // All that either takes out is taken out: P_a and P_b lie in it.
    for part in [&a, &b] {
        let p = projector(&part.layers[LAYER][0]);
        assert!(distance(&projector(stage).matmul(&p).unwrap(), &p) < 1e-6);
    }
    let sequence = merged(Merge::Sequential, Boundary::NONE, Excess::Refuse).unwrap();
    assert_eq!(sequence.layers[LAYER].iter().map(Stage::rank).collect::<Vec<_>>(), [2, 3]);
    let twice = merge(&[&a, &a], Merge::Union, None, Boundary::NONE, Excess::Refuse).unwrap();
    assert_eq!(twice.rank(), 2, "what is there already is not counted again");
    let eighth = Boundary::new(0.125).unwrap();
    let over = fault(merged(Merge::Union, eighth, Excess::Refuse).err().unwrap());
    assert!(matches!(over, Fault::RankBoundary { rank: 5, cap: 4, .. }), "{over}");
    for how in [Merge::Union, Merge::Sequential] {
        let cut = merged(how, eighth, Excess::Truncate).unwrap();
        assert_eq!(cut.stages().map(Stage::rank).sum::<usize>(), 4, "{how:?}");
        let free = merged(how, eighth, Excess::Ignore).unwrap();
        assert_eq!(free.stages().map(Stage::rank).sum::<usize>(), 5, "{how:?}");
    }
}

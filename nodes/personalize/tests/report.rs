//! What is told of adapters, and what is cancelled of every form.

use super::*;
use crate::wires::{Image, SpectralShifts};
use paraflow_diffusion::adapters::SvDiff;
use paraflow_engine::Value;

fn shifts() -> SvDiff {
    let layers = BTreeMap::from([
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q".to_owned(), drawn(8, &[32])),
        ("mid_block.resnets.1.conv2".to_owned(), drawn(9, &[64])),
    ]);
    SvDiff { layers, metadata: BTreeMap::new() }
}

#[test]
fn adapters_of_all_kinds_are_reported_layer_by_layer() {
    let bench = bench();
    let mut of_training = para(1);
    of_training.metadata =
        [("para.rank", "4"), ("para.gamma", "0.0625")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    write_para(&bench, "p", &of_training);
    bench.give("lora", Value::new(crate::wires::Lora(lora(3))));
    bench.give("shifts", Value::new(SpectralShifts(shifts())));
    let outcome = bench.run(json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
        "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
        "3": ["Give", {"name": "lora"}],
        "4": ["Give", {"name": "shifts"}],
        "5": ["AdapterReport", {
            "adapter_1": ["2", 0], "adapter_2": ["3", 0], "adapter_3": ["2", 0], "adapter_4": ["4", 0], "model": ["1", 0],
        }],
        "6": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0]}],
        "base": ["Catch", {"value": ["1", 0]}],
        "out": ["Catch", {"value": ["6", 0]}],
        "table": ["Catch", {"value": ["5", 0]}],
        "plot": ["Catch", {"value": ["5", 1]}],
    }));
    let table = outcome.caught("table").get::<String>().unwrap().clone();
    println!("{table}");
    assert!(
        table.contains("1: PaRa, 2 layers, 192 numbers, rank 2, 67 % of what gamma 0.0625 allows (2 layers clamped)")
    );
    assert!(table.contains("1 and 3: mean overlap 1.000"), "a PaRa lies wholly in itself");
    assert!(table.contains("4: SVDiff, 2 layers, 96 numbers, changes "));
    assert!(!table.contains("1 and 4"), "shifts have no directions in the output");
    // The energy that is taken out is that of the weights on the wire.
    for (layer, name) in [(LINEAR, IN_FILES[0]), (CONVOLUTION, IN_FILES[1])] {
        let (base, changed) = (weight(&outcome, "base", layer), weight(&outcome, "out", layer));
        let share = (length(&(&changed - &base).unwrap()) / length(&base)).powi(2);
        let row = table.lines().find(|row| row.starts_with(name)).unwrap();
        assert!(row.contains(&format!("{:.2} %", 100.0 * share)), "{share}: {row}");
    }
    let rows = |name: &str| table.lines().find(|row| row.starts_with(name)).unwrap().to_owned();
    assert!(rows(IN_FILES[0]).contains("2* of 2") && rows(IN_FILES[1]).contains("2* of 4"), "{table}");
    assert_eq!(outcome.shown("5")["text"][0].as_str().unwrap(), table.split("\n\n").next().unwrap());
    let plot = outcome.value::<Image>("plot");
    let (_, height, width, _) = plot.dims();
    assert!(width == 960 && height > 500, "four bands: {height}");
    let blue = plot.values(0).unwrap().as_chunks::<3>().0.iter().filter(|[r, _, b]| *r < 0.2 && *b > 0.7).count();
    assert!(blue > 1000, "{blue} pixels of the first adapter's colour");
    // Without a model nothing is known of changes.
    let outcome = bench.run(json!({
        "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
        "5": ["AdapterReport", {"adapter_1": ["2", 0], "gamma": 0.5}],
        "table": ["Catch", {"value": ["5", 0]}],
    }));
    let table = outcome.caught("table").get::<String>().unwrap();
    assert!(table.contains("of what gamma 0.5 allows") && !table.contains("squared length"), "{table}");
}

/// A file of two factors for the linear layer, and lengths if it is a DoRA.
fn write_family(bench: &Bench, name: &str, ends: &[(&str, &[usize])]) {
    let shapes = ends.iter().map(|(end, shape)| (format!("{}.{end}", IN_FILES[0]), shape.to_vec())).collect();
    bench.write(&format!("models/loras/{name}.safetensors"), &tiny::drawn_by_name(&shapes));
}

#[test]
fn a_loha_a_lokr_and_a_dora_below_a_para_are_told_with_what_they_lose() {
    let bench = bench();
    write_para(&bench, "p", &para(1));
    let halves: [(&str, &[usize]); 2] = [("lora_up.weight", &[32, 2]), ("lora_down.weight", &[2, 32])];
    write_family(
        &bench,
        "loha",
        &[("hada_w1_a", &[32, 2]), ("hada_w1_b", &[2, 32]), ("hada_w2_a", &[32, 2]), ("hada_w2_b", &[2, 32])],
    );
    write_family(&bench, "lokr", &[("lokr_w1", &[4, 8]), ("lokr_w2", &[8, 4])]);
    write_family(&bench, "dora", &[halves[0], halves[1], ("dora_scale", &[32, 1])]);
    write_family(&bench, "lora", &halves);
    for name in ["loha", "lokr", "dora", "lora"] {
        let file = format!("{name}.safetensors");
        let outcome = bench.run(json!({
            "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
            "2": ["PaRaLoad", {"para_name": "p.safetensors"}],
            "3": ["LoraLoaderModelOnly", {"model": ["1", 0], "lora_name": file, "strength_model": 0.7}],
            "4": ["PaRaApply", {"model": ["3", 0], "para": ["2", 0]}],
            "5": ["PaRaApply", {"model": ["1", 0], "para": ["2", 0]}],
            "base": ["Catch", {"value": ["1", 0]}],
            "below": ["Catch", {"value": ["3", 0]}],
            "out": ["Catch", {"value": ["4", 0]}],
        }));
        let warnings = outcome.warnings();
        assert_eq!(warnings.len(), 1, "{name}: {warnings:?}");
        let added = (weight(&outcome, "below", LINEAR) - weight(&outcome, "base", LINEAR)).unwrap();
        let q = para(1).layers[IN_FILES[0]][0].q().t().unwrap().contiguous().unwrap();
        let share = (length(&q.matmul(&added).unwrap()) / length(&added)).powi(2);
        let expected = format!("on 1 layers, and the PaRa cancels {:.1} % of it", 100.0 * share);
        assert!(warnings[0].contains(&expected), "{name}: {expected}: {}", warnings[0]);
        assert!(share > 1e-4, "{name}: {share}");
    }
}

#[test]
fn shifts_are_saved_and_loaded_as_they_were() {
    let bench = bench();
    bench.give("shifts", Value::new(SpectralShifts(shifts())));
    let outcome = bench.run(json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
        "2": ["Give", {"name": "shifts"}],
        "3": ["SVDiffSave", {"svdiff": ["2", 0], "filename_prefix": "loras/s"}],
        "4": ["SVDiffApply", {"model": ["1", 0], "svdiff": ["2", 0]}],
        "out": ["Catch", {"value": ["4", 0]}],
    }));
    let loaded = bench.run(json!({
        "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
        "2": ["SVDiffLoad", {"svdiff_name": "s_00001_.safetensors"}],
        "4": ["SVDiffApply", {"model": ["1", 0], "svdiff": ["2", 0]}],
        "out": ["Catch", {"value": ["4", 0]}],
    }));
    assert!(loaded.warnings().is_empty(), "{:?}", loaded.warnings());
    assert_eq!(predict(&loaded, "out"), predict(&outcome, "out"), "to the bit");
    let file = paraflow_diffusion::nn::Weights::open(bench.path("output/loras/s_00001_.safetensors")).unwrap();
    assert!(file.metadata()["paraflow.prompt"].contains("SVDiffSave"), "it says from which graph it is");
    // A file of svdiff-pytorch has shifts of norms, too, which are told.
    let shapes = [("norm.delta", 8), ("mid_block.resnets.1.conv2.delta", 64)];
    let shapes = shapes.map(|(key, count)| (key.to_owned(), vec![count])).into();
    bench.write("models/loras/spectral_shifts.safetensors", &tiny::drawn_by_name(&shapes));
    let apply = |unmatched: &str| {
        bench.run(json!({
            "1": ["CheckpointLoaderSimple", {"ckpt_name": "tiny.safetensors"}],
            "2": ["SVDiffLoad", {"svdiff_name": "spectral_shifts.safetensors"}],
            "4": ["SVDiffApply", {"model": ["1", 0], "svdiff": ["2", 0], "unmatched": unmatched}],
            "out": ["Catch", {"value": ["4", 0]}],
        }))
    };
    assert!(apply("error").failure().1.to_string().contains("1 of 2 parts of the adapter fit no layer"));
    assert!(apply("ignore").warnings()[0].contains("`norm`"));
    write_lora(&bench, "l", &lora(3));
    let wrong = bench.run(json!({
        "2": ["SVDiffLoad", {"svdiff_name": "l.safetensors"}],
        "out": ["Catch", {"value": ["2", 0]}],
    }));
    assert!(wrong.failure().1.to_string().contains("it holds no spectral shifts"));
}

//! Small networks against transformers': see `tests/golden/vision.py`.

use std::collections::BTreeMap;

use candle_core::Device;
use serde_json::Value;

use super::*;
use crate::testing::{drawn_file, relative_error, uniform};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/vision/");

type Shapes = BTreeMap<String, Vec<usize>>;

fn listing() -> Value {
    serde_json::from_str(&std::fs::read_to_string(format!("{GOLDEN}models.json")).unwrap()).unwrap()
}

fn recorded(key: &str) -> Tensor {
    let file = Weights::open(format!("{GOLDEN}tensors.safetensors")).unwrap();
    file.tensor(key, file.shape(key).unwrap()).unwrap()
}

fn shapes(model: &str) -> Shapes {
    serde_json::from_value(listing()["models"][model].clone()).unwrap()
}

fn weights(model: &str) -> Weights {
    Weights::from_bytes(model, drawn_file(&shapes(model))).unwrap()
}

fn pictures() -> Vec<(String, Tensor)> {
    let listing = listing();
    let picture = |(name, size): (&String, &Value)| {
        let (width, height) = (size[0].as_u64().unwrap() as usize, size[1].as_u64().unwrap() as usize);
        let byte = |u: f64| f32::from(((u + 1.0) / 2.0 * 255.0) as u8) / 255.0;
        let values: Vec<f32> = uniform(name, width * height * 3).into_iter().map(byte).collect();
        (name.clone(), Tensor::from_vec(values, (1, height, width, 3), &Device::Cpu).unwrap())
    };
    listing["pictures"].as_object().unwrap().iter().map(picture).collect()
}

#[test]
fn pictures_and_texts_have_the_vectors_of_transformers() {
    let clip = ClipPair::load(&weights("clip"), None).unwrap();
    for (name, picture) in pictures() {
        let error = relative_error(&clip.embed(&picture).unwrap(), &recorded(&format!("clip/{name}")));
        println!("clip/{name}: {error:.1e}");
        assert!(error < 1e-5, "clip/{name}: {error}");
    }
    for (index, text) in listing()["texts"].as_array().unwrap().iter().enumerate() {
        let found = clip.embed_text(text.as_str().unwrap()).unwrap();
        let error = relative_error(&found, &recorded(&format!("clip/text {index}")));
        println!("clip/text {index}: {error:.1e}");
        assert!(error < 1e-5, "clip/text {index}: {error}");
    }
    for model in ["dino", "dino2"] {
        let vision = Vision::load(&weights(model), Activation::Gelu).unwrap();
        for (name, picture) in pictures() {
            let error = relative_error(&vision.embed(&picture).unwrap(), &recorded(&format!("{model}/{name}")));
            println!("{model}/{name}: {error:.1e}");
            assert!(error < 1e-5, "{model}/{name}: {error}");
        }
    }
}

/// The authors keep queries, keys and values in one matrix and call everything otherwise.
#[test]
fn the_authors_spelling_is_the_same_network() {
    for (model, bound) in [("dino", 1e-4), ("dino2", 1e-7)] {
        let ours = weights(model);
        let (layout, _) = Layout::find(&ours).unwrap();
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        let read = |key: &str| ours.tensor(key, ours.shape(key).unwrap()).unwrap();
        for (theirs, key) in [("cls_token", layout.class), ("pos_embed", layout.positions)] {
            tensors.push((theirs.to_owned(), read(key)));
        }
        for kind in ["weight", "bias"] {
            tensors.push((format!("patch_embed.proj.{kind}"), read(&format!("{}.{kind}", layout.patch))));
            tensors.push((format!("norm.{kind}"), read(&format!("{}.{kind}", layout.after))));
            for block in 0..3 {
                let part = |name: &str| read(&format!("{}.{block}.{name}.{kind}", layout.blocks));
                let place = format!("blocks.{block}");
                let joined = Tensor::cat(&layout.attention[..3].iter().map(|name| part(name)).collect::<Vec<_>>(), 0);
                tensors.push((format!("{place}.attn.qkv.{kind}"), joined.unwrap()));
                for (theirs, name) in [
                    ("attn.proj", layout.attention[3]),
                    ("norm1", layout.norms[0]),
                    ("norm2", layout.norms[1]),
                    ("mlp.fc1", layout.products[0]),
                    ("mlp.fc2", layout.products[1]),
                ] {
                    tensors.push((format!("{place}.{theirs}.{kind}"), part(name)));
                }
            }
        }
        for block in 0..3 {
            for (index, name) in layout.scales.iter().flatten().enumerate() {
                let key = format!("{}.{block}.{name}", layout.blocks);
                tensors.push((format!("blocks.{block}.ls{}.gamma", index + 1), read(&key)));
            }
        }
        let file: std::collections::HashMap<String, Tensor> = tensors.into_iter().collect();
        let folder = std::env::temp_dir().join(format!("paraflow-vision-{}-{model}.safetensors", std::process::id()));
        candle_core::safetensors::save(&file, &folder).unwrap();
        let theirs = Vision::load(&Weights::open(&folder).unwrap(), Activation::Gelu).unwrap();
        std::fs::remove_file(&folder).unwrap();
        let same = Vision::load(&ours, Activation::Gelu).unwrap();
        for (name, picture) in pictures() {
            let error = relative_error(&theirs.embed(&picture).unwrap(), &same.embed(&picture).unwrap());
            assert!(error < bound, "{model}/{name}: {error}");
        }
    }
}

#[test]
fn a_file_of_something_else_is_told() {
    let other = Weights::from_bytes("x", drawn_file(&Shapes::from([("a.weight".to_owned(), vec![2, 2])]))).unwrap();
    let error = Vision::load(&other, Activation::Gelu).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("there is no vision transformer in this file"), "{error}");
    let error = ClipPair::load(&weights("dino"), None).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("it holds DINO, which DINOScore takes"), "{error}");
    let mut shapes = shapes("clip");
    shapes.retain(|key, _| !key.starts_with("text_"));
    let half = ClipPair::load(&Weights::from_bytes("half", drawn_file(&shapes)).unwrap(), None).unwrap();
    assert!(half.embed(&pictures()[0].1).is_ok());
    let error = half.embed_text("a bear").unwrap_err().to_string();
    assert!(error.contains("there is no text half in this file"), "{error}");
    shapes.insert("vision_model.embeddings.position_embedding.weight".to_owned(), vec![25, 128]);
    let error = ClipPair::load(&Weights::from_bytes("odd", drawn_file(&shapes)).unwrap(), None).map(|_| ());
    assert!(error.unwrap_err().to_string().contains("a square of tokens and one more"));
}

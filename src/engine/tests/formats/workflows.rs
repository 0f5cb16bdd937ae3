//! Every pair of files under `tests/workflows/`.

use std::fs;
use std::path::{Path, PathBuf};

use paraflow_engine::formats::{Conditions, FormatError, as_workflow, read_under};
use paraflow_engine::graph::Graph;
use serde_json::Value as Json;

use crate::stock::{stock, without_titles};

fn folder() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/workflows")).to_owned()
}

/// The files of a folder whose names end so, sorted, with the part before.
fn files(folder: &Path, end: &str) -> Vec<(String, PathBuf)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| Some((path.file_name()?.to_str()?.strip_suffix(end)?.to_owned(), path.clone())))
        .collect();
    files.sort();
    files
}

fn read(bytes: &[u8]) -> Result<Graph, FormatError> {
    let now = jiff::civil::date(2026, 1, 7).at(8, 9, 5, 0);
    read_under(bytes, &stock(), &Conditions { now, seed: None })
}

/// Node ids in their order, which equality of objects does not see.
fn ids(prompt: &Json) -> Vec<&String> {
    prompt.as_object().unwrap().keys().collect()
}

#[test]
fn every_workflow_runs_as_the_prompt_beside_it() {
    let cases = files(&folder(), ".ui.json");
    assert!(cases.len() >= 30, "the files are found: {}", cases.len());
    for (name, path) in cases {
        let bytes = fs::read(&path).unwrap();
        let expected: Json =
            serde_json::from_slice(&fs::read(folder().join(format!("{name}.api.json"))).unwrap()).unwrap();
        let graph = read(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let titled = ids(&expected).iter().any(|&id| expected[id].get("_meta").is_some());
        let found = if titled { graph.to_prompt() } else { without_titles(&graph) };
        let show = |prompt: &Json| serde_json::to_string_pretty(prompt).unwrap();
        assert!(same(&found, &expected), "{name}: found {}\nexpected {}", show(&found), show(&expected));
        if name == "text-to-image" {
            assert_eq!(ids(&found), ids(&expected), "{name}: in the order of execution");
        }
        let workflow: Json = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(graph.workflow, Some(workflow), "{name}: the workflow is kept, unknown fields and all");
        assert_eq!(
            read(graph.to_prompt().to_string().as_bytes()).unwrap().nodes,
            graph.nodes,
            "{name}: and the prompt reads"
        );
    }
}

#[test]
fn every_prompt_is_the_same_when_it_is_read_from_the_workflow_that_is_made_of_it() {
    let cases = files(&folder(), ".api.json");
    assert!(cases.len() >= 30, "the files are found: {}", cases.len());
    for (name, path) in cases {
        let graph = read(&fs::read(&path).unwrap()).unwrap();
        let workflow = as_workflow(&graph, &stock());
        let again = read(workflow.to_string().as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let (before, after) = (graph.to_prompt(), again.to_prompt());
        let (mut before_ids, mut after_ids) = (ids(&before), ids(&after));
        before_ids.sort();
        after_ids.sort();
        assert_eq!(before_ids, after_ids, "{name}");
        for id in before_ids {
            assert_eq!(before[id]["class_type"], after[id]["class_type"], "{name}: {id}");
            for (input, value) in before[id]["inputs"].as_object().unwrap() {
                let found = &after[id]["inputs"][input];
                // `%Node.widget%` in a file's name is filled in whenever a workflow becomes a prompt, by ComfyUI's editor too.
                if value.as_str().is_some_and(|text| text.contains("%LoadImage.")) {
                    continue;
                }
                assert!(same(found, value), "{name}: {id}.{input} is {found}, was {value}\n{workflow}");
            }
        }
    }
}

#[test]
fn a_workflow_that_is_made_of_a_graph_has_what_an_editor_needs() {
    let prompt = serde_json::json!({
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5.safetensors"}},
        "x": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "7": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": 5, "latent_image": ["x", 0]},
              "_meta": {"title": "Sampler"}},
    });
    let workflow = as_workflow(&read(prompt.to_string().as_bytes()).unwrap(), &stock());
    assert_eq!((&workflow["last_node_id"], &workflow["last_link_id"]), (&7.into(), &2.into()));
    assert_eq!(workflow["links"], serde_json::json!([[1, 1, 0, 7, 0, "MODEL"], [2, "x", 0, 7, 3, "LATENT"]]));
    let sampler = &workflow["nodes"][2];
    assert_eq!((&sampler["title"], &sampler["order"]), (&"Sampler".into(), &2.into()));
    assert_eq!((&sampler["inputs"][0]["name"], &sampler["inputs"][0]["link"]), (&"model".into(), &1.into()));
    assert_eq!(sampler["inputs"][1]["link"], Json::Null);
    let values = sampler["widgets_values"].as_array().unwrap();
    assert_eq!((&values[0], &values[1], &values[2]), (&5.into(), &"fixed".into(), &20.into()));
    assert_eq!(workflow["nodes"][0]["outputs"][0]["links"], serde_json::json!([1]));
    assert!(workflow["nodes"][2]["pos"][0].as_f64() > workflow["nodes"][0]["pos"][0].as_f64());
}

/// Equal, with `8` and `8.0` the same number; titles count where `expected` has them.
fn same(found: &Json, expected: &Json) -> bool {
    match (found, expected) {
        (Json::Number(a), Json::Number(b)) => a == b || a.as_f64() == b.as_f64() && (a.is_f64() || b.is_f64()),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            let known = |key: &String| key != "_meta" || b.contains_key(key);
            a.keys().filter(|key| known(key)).count() == b.len()
                && b.iter().all(|(key, b)| a.get(key).is_some_and(|a| same(a, b)))
        }
        (a, b) => a == b,
    }
}

#[test]
fn every_broken_file_is_answered_by_the_text_beside_it() {
    let cases = files(&folder().join("faults"), ".json");
    assert!(cases.len() >= 15, "the files are found: {}", cases.len());
    let mut wrong = Vec::new();
    for (name, path) in cases {
        let expected = fs::read_to_string(path.with_extension("txt")).unwrap();
        let found = match read(&fs::read(&path).unwrap()) {
            Ok(_) => "no error".to_owned(),
            Err(error) => match error.hint() {
                Some(hint) => format!("{error}\nhint: {hint}\n"),
                None => format!("{error}\n"),
            },
        };
        if found != expected {
            wrong.push(format!("{name}:\n{found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

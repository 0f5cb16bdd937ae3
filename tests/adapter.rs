//! `paraflow adapter`, whole: what a person types, and everything that comes back.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

/// A layer of Toyland's with 192 outputs and as many inputs, as files spell it.
const LAYER: &str = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q";
const OTHER: &str = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v";
const WIDTH: usize = 192;

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// Both streams, told apart.
    fn whole(&self) -> String {
        format!("code {}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }

    fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.stderr);
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn adapter(base: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paraflow"));
    command.arg("adapter").args(args).arg("--base-dir").arg(base).current_dir(base).stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(base.to_str().unwrap(), "BASE");
    Ran { code: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// A safetensors file of f32 tensors.
fn file(tensors: &[(String, Vec<usize>, Vec<f32>)], metadata: &Value) -> Vec<u8> {
    let mut header = json!({"__metadata__": metadata});
    let mut data: Vec<u8> = Vec::new();
    for (name, shape, numbers) in tensors {
        let start = data.len();
        data.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        header[name] = json!({"dtype": "F32", "shape": shape, "data_offsets": [start, data.len()]});
    }
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data[..]].concat()
}

/// A PaRa that takes single outputs of layers out: `(layer, outputs)`.
fn para(layers: &[(&str, &[usize])]) -> Vec<u8> {
    let tensors: Vec<_> = layers
        .iter()
        .map(|(layer, outputs)| {
            let mut columns = vec![0.0; WIDTH * outputs.len()];
            outputs.iter().enumerate().for_each(|(column, row)| columns[row * outputs.len() + column] = 1.0);
            (format!("{layer}.para_q"), vec![WIDTH, outputs.len()], columns)
        })
        .collect();
    file(&tensors, &json!({"para.version": "1", "para.class": "bear", "para.trigger": "zor"}))
}

fn lora() -> Vec<u8> {
    let tensors = [
        (format!("{LAYER}.lora_down.weight"), vec![1, WIDTH], vec![0.5; WIDTH]),
        (format!("{LAYER}.lora_up.weight"), vec![WIDTH, 1], vec![0.5; WIDTH]),
        (format!("{LAYER}.alpha"), vec![], vec![1.0]),
    ];
    file(&tensors, &json!({"ss_network_module": "networks.lora"}))
}

/// A base directory with adapters among its models.
fn base() -> tempfile::TempDir {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("models/loras");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("one.safetensors"), para(&[(LAYER, &[0, 1])])).unwrap();
    fs::write(folder.join("two.safetensors"), para(&[(LAYER, &[1, 2, 3]), (OTHER, &[5])])).unwrap();
    fs::write(folder.join("lora.safetensors"), lora()).unwrap();
    base
}

#[test]
fn adapters_are_described() {
    let base = base();
    let ran = adapter(base.path(), &["info", "one.safetensors", "two.safetensors", "lora.safetensors"]);
    insta::assert_snapshot!("adapter_info", ran.whole());
    let told = adapter(base.path(), &["info", "two.safetensors", "--json"]).json();
    assert_eq!(told["kind"], "para");
    assert_eq!(told["layers"][LAYER], json!({"kind": "PaRa", "rank": 3, "outputs": WIDTH}));
    assert_eq!(told["metadata"]["para.class"], "bear");
    let args = ["info", "one.safetensors", "two.safetensors", "--base", "toyland.safetensors", "--json"];
    let ran = adapter(base.path(), &args);
    let changes: Vec<f64> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["layers"][LAYER]["change"].as_f64().unwrap())
        .collect();
    // Two and three outputs of 192; a weight's rows are about alike.
    assert!(changes.iter().all(|change| (0.001..0.1).contains(change)), "{changes:?}");
}

#[test]
fn two_paras_become_one() {
    let base = base();
    let ran = adapter(base.path(), &["merge", "both.safetensors", "one.safetensors", "two.safetensors"]);
    insta::assert_snapshot!("adapter_merge", ran.whole());
    let told = adapter(base.path(), &["info", "both.safetensors", "--json"]).json();
    assert_eq!(told["layers"][LAYER]["rank"], 5, "two stages side by side");
    let args = ["merge", "union.safetensors", "one.safetensors", "two.safetensors", "--how", "union"];
    assert_eq!(adapter(base.path(), &args).code, 0);
    let told = adapter(base.path(), &["info", "union.safetensors", "--json"]).json();
    assert_eq!(told["layers"][LAYER]["rank"], 4, "the output that both take out counts once");
    assert_eq!(told["metadata"]["para.merge"], "union");
}

#[test]
fn a_para_is_exported_for_its_base() {
    let base = base();
    let args = ["export", "toyland.safetensors", "two.safetensors", "exported.safetensors", "--json"];
    let told = adapter(base.path(), &args).json();
    let errors = told["errors"].as_object().unwrap();
    assert_eq!(errors.len(), 2);
    assert!(errors.values().all(|error| error.as_f64().unwrap() < 1e-6), "{errors:?}");
    let told = adapter(base.path(), &["info", "exported.safetensors", "--json"]).json();
    // Filled up to the other layer's three, since diffusers weighs files of several ranks wrongly.
    assert_eq!((&told["kind"], &told["layers"][OTHER]["rank"]), (&json!("lora"), &json!(3)));
    assert!(told["metadata"]["para.base_print"].is_string());
    let args = ["export", "toyland.safetensors", "one.safetensors", "half.safetensors", "--dtype", "f16"];
    let ran = adapter(base.path(), &args);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "half.safetensors\n"));
    let size = |name: &str| fs::metadata(base.path().join(name)).unwrap().len();
    assert!(size("half.safetensors") < size("exported.safetensors"));
}

#[test]
fn adapters_are_compared_layer_by_layer() {
    let base = base();
    let ran = adapter(base.path(), &["diff", "one.safetensors", "two.safetensors"]);
    insta::assert_snapshot!("adapter_diff", ran.whole());
    let told = adapter(base.path(), &["diff", "one.safetensors", "one.safetensors", "--json"]).json();
    assert!((told["common"][LAYER]["overlap"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    let told = adapter(base.path(), &["diff", "one.safetensors", "lora.safetensors", "--json"]).json();
    // The LoRA's only direction has all outputs alike: 2 of 192 lie in the PaRa.
    let overlap = told["common"][LAYER]["overlap"].as_f64().unwrap();
    assert!((overlap - 2.0 / WIDTH as f64).abs() < 1e-6, "{overlap}");
}

/// Shifts of one layer's first singular values.
fn shifts(numbers: &[f32]) -> Vec<u8> {
    let mut all = vec![0.0; WIDTH];
    all[..numbers.len()].copy_from_slice(numbers);
    let layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.delta".to_owned();
    file(&[(layer, vec![WIDTH], all)], &json!({"paraflow.class": "bear"}))
}

#[test]
fn spectral_shifts_are_described_added_and_compared() {
    let base = base();
    for (name, numbers) in [("s1", &[0.5, 0.5][..]), ("s2", &[0.5, -0.5, 0.25])] {
        fs::write(base.path().join(format!("models/loras/{name}.safetensors")), shifts(numbers)).unwrap();
    }
    let layer = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q";
    let told = adapter(base.path(), &["info", "s1.safetensors", "--json"]).json();
    assert_eq!((&told["kind"], &told["parameters"]), (&json!("svdiff"), &json!(WIDTH)));
    assert_eq!(told["layers"][layer]["kind"], "SVDiff");
    let ran = adapter(base.path(), &["info", "s1.safetensors"]);
    assert!(
        ran.stdout.contains("SVDiff on 1 layer\n") && ran.stdout.contains("paraflow.class: bear"),
        "{}",
        ran.stdout
    );
    // With the checkpoint the change is measured: two singular values of it moved by a half.
    let told = adapter(base.path(), &["info", "s1.safetensors", "--base", "toyland.safetensors", "--json"]).json();
    let change = told["layers"][LAYER]["change"].as_f64().unwrap();
    assert!(change > 1e-6 && change < 1.0, "{change}");
    let told = adapter(base.path(), &["merge", "sum.safetensors", "s1.safetensors", "s2.safetensors", "--json"]).json();
    assert_eq!((&told["layers"], &told["parameters"]), (&json!(1), &json!(WIDTH)));
    let told = adapter(base.path(), &["info", "sum.safetensors", "--json"]).json();
    assert_eq!(
        (&told["metadata"]["paraflow.merge"], &told["metadata"]["paraflow.class"]),
        (&json!("added"), &json!("bear"))
    );
    // 0.5 + 0.5, 0.5 - 0.5, 0.25: the cosine to the first is 1 / sqrt(1.0625) * 1 / sqrt(2).
    let told = adapter(base.path(), &["diff", "sum.safetensors", "s1.safetensors", "--json"]).json();
    let overlap = told["common"][layer]["overlap"].as_f64().unwrap();
    assert!((overlap - 1.0 / (2.0 * 1.0625)).abs() < 1e-6, "{overlap}");
    for (args, expected) in [
        (
            &["merge", "x.safetensors", "s1.safetensors", "one.safetensors"][..],
            "it holds a para, and the first file an SVDiff",
        ),
        (&["merge", "x.safetensors", "one.safetensors", "s1.safetensors"], "it holds an SVDiff, not a PaRa"),
        (
            &["merge", "x.safetensors", "s1.safetensors", "s2.safetensors", "--how", "union"],
            "spectral shifts are added",
        ),
        (&["export", "toyland.safetensors", "s1.safetensors", "x.safetensors"], "it holds an SVDiff, not a PaRa"),
    ] {
        let ran = adapter(base.path(), args);
        assert!(ran.code == 1 && ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
    }
    assert!(!base.path().join("x.safetensors").exists());
}

/// What is exported is exact for the checkpoint that is given; that it is another than the PaRa's is said.
#[test]
fn an_export_for_another_checkpoint_is_told() {
    let base = base();
    let print = json!({"conv_in": {"rms": 0.5, "w": vec![0.5; 8]}}).to_string();
    let columns: Vec<f32> = (0..WIDTH).map(|row| if row == 3 { 1.0 } else { 0.0 }).collect();
    let header = json!({"para.version": "1", "para.base_name": "first.safetensors", "para.base_print": print});
    let foreign = file(&[(format!("{LAYER}.para_q"), vec![WIDTH, 1], columns)], &header);
    fs::write(base.path().join("models/loras/foreign.safetensors"), foreign).unwrap();
    let ran = adapter(base.path(), &["export", "toyland.safetensors", "foreign.safetensors", "out.safetensors"]);
    assert_eq!(ran.code, 0, "{}", ran.whole());
    let told =
        "warning: the adapter was trained on first.safetensors, and this checkpoint differs from it in `conv_in`";
    assert!(ran.stderr.contains(told), "{}", ran.whole());
    let ran = adapter(base.path(), &["export", "toyland.safetensors", "one.safetensors", "other.safetensors"]);
    assert!(ran.code == 0 && !ran.stderr.contains("warning"), "a header that says nothing: {}", ran.whole());
}

/// A file of the PaRa authors' program is read where it is said to be one, and nowhere else.
#[test]
fn a_file_of_the_authors_is_imported_and_never_guessed() {
    let base = base();
    let released = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/adapters/released.pt");
    fs::copy(released, base.path().join("released.pt")).unwrap();
    let ran = adapter(base.path(), &["info", "released.pt"]);
    assert!(ran.code == 1 && ran.stderr.contains("pickled checkpoint"), "{}", ran.whole());
    let made = adapter(base.path(), &["import", "released.pt", "made.safetensors", "--json"]).json();
    assert_eq!((&made["layers"], &made["rank"]), (&json!(2), &json!(3)));
    let told = adapter(base.path(), &["info", "made.safetensors", "--json"]).json();
    assert_eq!((&told["kind"], &told["metadata"]["para.mode"]), (&json!("lora"), &json!("release")));
    assert!(told["metadata"]["para.sources"].as_str().unwrap().contains("released.pt"));
    let layers = told["layers"].as_object().unwrap();
    assert!(layers.len() == 2 && layers.values().all(|layer| layer["rank"] == 3), "one rank for all: {layers:?}");
    let again = adapter(base.path(), &["import", "released.pt", "made.safetensors"]);
    assert!(again.code == 1 && again.stderr.contains("is there already"), "{}", again.whole());
    fs::write(base.path().join("torn.pt"), &fs::read(released).unwrap()[..900]).unwrap();
    for (file, expected) in [
        ("torn.pt", "it is no file that torch saved"),
        ("absent.pt", "cannot be read"),
        ("models/loras/one.safetensors", "it holds a PaRa, not a LoRA"),
    ] {
        let ran = adapter(base.path(), &["import", file, "none.safetensors"]);
        assert!(ran.code == 1 && ran.stderr.contains(expected), "{file}: {}", ran.whole());
    }
    assert!(!base.path().join("none.safetensors").exists());
}

/// A disk that takes no more: what is there stays, and no part of a file is left.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_what_was_there() {
    let base = base();
    let program = env!("CARGO_BIN_EXE_paraflow");
    // Files may not grow beyond a few hundred bytes, and the program is told so in place of being ended.
    let script = format!(
        "trap '' XFSZ; ulimit -f 1; exec {program} adapter merge out.safetensors one.safetensors two.safetensors"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, "--"]).current_dir(base.path()).stdin(Stdio::null());
    command.env("HOME", base.path());
    fs::copy(base.path().join("models/loras/one.safetensors"), base.path().join("one.safetensors")).unwrap();
    fs::copy(base.path().join("models/loras/two.safetensors"), base.path().join("two.safetensors")).unwrap();
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("cannot write `out.safetensors`"), "{told}");
    let mut left: Vec<_> =
        fs::read_dir(base.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.retain(|name| name.contains("safetensors"));
    left.sort();
    assert_eq!(left, ["one.safetensors", "two.safetensors"], "no part of a file is left");
    assert_eq!(fs::read(base.path().join("one.safetensors")).unwrap(), para(&[(LAYER, &[0, 1])]));
}

#[test]
fn what_cannot_be_done_is_told_and_nothing_is_written() {
    let base = base();
    fs::write(base.path().join("taken.safetensors"), "kept").unwrap();
    fs::write(base.path().join("page.safetensors"), "<!DOCTYPE html>").unwrap();
    let mut told = String::new();
    for args in [
        &["info", "oen.safetensors"][..],
        &["info", "page.safetensors"],
        &["merge", "out.safetensors", "one.safetensors", "lora.safetensors"],
        &["merge", "taken.safetensors", "one.safetensors", "two.safetensors"],
        &["merge", "out.safetensors", "one.safetensors", "two.safetensors", "--gamma", "0.01"],
        &["merge", "out.safetensors", "one.safetensors", "two.safetensors", "--gamma", "0"],
        &["export", "absent.safetensors", "one.safetensors", "out.safetensors"],
        &["diff", "one.safetensors", "absent.safetensors"],
    ] {
        let ran = adapter(base.path(), args);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{args:?}: {}", ran.stderr);
        told += &ran.stderr;
    }
    insta::assert_snapshot!("adapter_faults", told);
    assert!(!base.path().join("out.safetensors").exists());
    assert_eq!(fs::read(base.path().join("taken.safetensors")).unwrap(), b"kept");
    assert_eq!(adapter(base.path(), &["merge", "out.safetensors", "one.safetensors"]).code, 2, "one is none to merge");
    assert_eq!(adapter(base.path(), &["export", "toyland.safetensors"]).code, 2);
}

/// Names of all tests below a folder.
fn tests_below(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let functions = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            found.extend(functions.map(str::to_owned));
        }
    }
}

#[test]
fn every_edge_case_has_a_test_of_that_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = Vec::new();
    ["src", "nodes", "tests"].iter().for_each(|folder| tests_below(&root.join(folder), &mut tests));
    let page = fs::read_to_string(root.join("docs/adapter-edges.md")).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| case ")).collect();
    assert!(rows.len() > 30, "{} rows", rows.len());
    for row in rows {
        let named = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{row}");
        for name in names {
            assert!(tests.iter().any(|test| test == name), "there is no test `{name}`: {row}");
        }
    }
}

//! The command line, whole: what a person types, and everything that comes back.
//!
//! Each test has a base directory of its own. Paths and times are filtered out of what is compared.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const GRAPHS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/graphs");

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn command(base: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paraflow"));
    command.args(args).arg("--base-dir").arg(base).current_dir(base).stdin(Stdio::null());
    command
}

fn paraflow(base: &Path, args: &[&str]) -> Ran {
    ran(base, &command(base, args).output().unwrap())
}

fn ran(base: &Path, output: &Output) -> Ran {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().replace(base.to_str().unwrap(), "BASE");
    Ran { code: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

fn base() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn graph(name: &str) -> String {
    format!("{GRAPHS}/{name}.json")
}

/// Writes a file into the base directory and gives its name.
fn written(base: &Path, name: &str, content: impl AsRef<[u8]>) -> String {
    fs::write(base.join(name), content).unwrap();
    name.to_owned()
}

fn pictures(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(dir).map_or(vec![], |dir| dir.map(|entry| entry.unwrap().path()).collect());
    found.sort();
    found
}

/// The text chunks of a PNG, by keyword.
fn text_chunks(png: &Path) -> Vec<(String, String)> {
    let decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(png).unwrap()));
    let reader = decoder.read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (128, 128));
    reader.info().uncompressed_latin1_text.iter().map(|chunk| (chunk.keyword.clone(), chunk.text.clone())).collect()
}

#[test]
fn the_first_picture_carries_its_graph_and_runs_again_from_itself_to_the_same_bytes() {
    let base = base();
    let first = paraflow(base.path(), &["run", &graph("text-to-image"), "--set", "KSampler.steps=4"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    let path = first.stdout.trim().replace("BASE", base.path().to_str().unwrap());
    let chunks = text_chunks(Path::new(&path));
    assert_eq!(chunks[0].0, "prompt");
    assert!(chunks[0].1.contains("\"class_type\": \"KSampler\""), "{}", chunks[0].1);

    let again = paraflow(base.path(), &["run", &path, "--out", "again"]);
    assert_eq!(again.code, 0, "{}", again.stderr);
    let copy = pictures(&base.path().join("again"));
    assert_eq!(copy.len(), 1);
    assert_eq!(fs::read(&copy[0]).unwrap(), fs::read(&path).unwrap());
}

#[test]
fn every_shipped_graph_runs() {
    for name in ["text-to-image", "image-to-image", "inpaint"] {
        let base = base();
        let ran = paraflow(base.path(), &["run", &graph(name), "--set", "KSampler.steps=3", "--json"]);
        assert_eq!(ran.code, 0, "{name}: {}", ran.stderr);
        for line in ran.stdout.lines() {
            let result: serde_json::Value = serde_json::from_str(line).unwrap();
            let path = result["path"].as_str().unwrap().replace("BASE", base.path().to_str().unwrap());
            text_chunks(Path::new(&path));
        }
        assert!(!ran.stdout.is_empty());
        assert_eq!(paraflow(base.path(), &["check", &graph(name)]).code, 0);
    }
}

#[test]
fn two_processes_saving_under_one_prefix_overwrite_nothing() {
    let base = base();
    let start = |seed: &str| {
        let set = format!("KSampler.seed={seed}");
        let args = ["run", &graph("text-to-image"), "--set", "KSampler.steps=1", "--set", &set];
        command(base.path(), &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<_> = ["1", "2", "3"].into_iter().map(start).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let found = pictures(&base.path().join("output"));
    assert_eq!(found.len(), 3, "{found:?}");
    found.iter().for_each(|path| assert_eq!(text_chunks(path)[0].0, "prompt"));
}

#[test]
fn all_faults_are_told_at_once_and_nothing_is_made() {
    let base = base();
    let graph = written(
        base.path(),
        "faulty.json",
        r#"{
          "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "toyland.safetensors"}},
          "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red bear", "clip": ["1", 1]}},
          "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 0, "height": 128, "batch_size": 1}},
          "4": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "seed": 1, "steps": 20, "cfg": 4,
                "sampler_name": "dpm++_2m", "scheduler": "karras", "positive": ["2", 0], "negative": ["9", 0],
                "latent_image": ["5", 0], "denoise": 1}},
          "5": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}},
          "6": {"class_type": "SaveImage", "inputs": {"images": ["4", 0], "filename_prefix": "never"}}
        }"#,
    );
    let ran = paraflow(base.path(), &["run", &graph]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.stdout, "");
    insta::assert_snapshot!("all_faults", ran.stderr);
    assert!(!base.path().join("output").exists());
    assert_eq!(paraflow(base.path(), &["check", &graph]).stderr, ran.stderr);
}

#[test]
fn what_is_no_graph_is_told_in_one_sentence() {
    let base = base();
    let files = [
        ("words.json", b"hello".as_slice()),
        ("list.json", b"[1, 2]"),
        ("object.json", b"{\"a\": 1}"),
        ("empty.json", b""),
        ("picture.png", b"\x89PNG\r\n\x1a\n----"),
    ];
    let mut told = String::new();
    for (name, content) in files {
        let ran = paraflow(base.path(), &["run", &written(base.path(), name, content)]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{name}");
        told += &ran.stderr;
    }
    let ran = paraflow(base.path(), &["run", "absent.json"]);
    assert_eq!(ran.code, 1);
    insta::assert_snapshot!("no_graph", told + &ran.stderr);
}

#[test]
fn a_wrong_set_names_the_nearest_right_one() {
    let base = base();
    let mut told = String::new();
    for set in ["KSampler.sede=7", "KSamplr.seed=7", "KSampler.steps=many", "KSampler.steps=0"] {
        let ran = paraflow(base.path(), &["check", &graph("text-to-image"), "--set", set]);
        assert_eq!(ran.code, 1, "{set}");
        told += &ran.stderr;
    }
    insta::assert_snapshot!("wrong_set", told);
}

#[test]
fn every_wrong_set_is_told_at_once() {
    let base = base();
    let sets = ["seed=18446744073709551616", "steps=0", "cfg=1e400", "sampler_name=eulr", "denoise=0.5", "sede=1"];
    let sets: Vec<String> = sets.iter().map(|set| format!("KSampler.{set}")).collect();
    let graph = graph("text-to-image");
    let args = ["check", &graph].into_iter().chain(sets.iter().flat_map(|set| ["--set", set]));
    let ran = paraflow(base.path(), &args.collect::<Vec<_>>());
    assert_eq!(ran.code, 1);
    insta::assert_snapshot!("wrong_sets", ran.stderr);
}

#[test]
fn a_node_is_explained_and_a_wrong_name_corrected() {
    let base = base();
    let ran = paraflow(base.path(), &["nodes", "EmptyLatentImage"]);
    assert_eq!(ran.code, 0);
    insta::assert_snapshot!("node", ran.stdout);
    let wrong = paraflow(base.path(), &["nodes", "KSamplr"]);
    assert_eq!(wrong.code, 1);
    assert_eq!(wrong.stderr, "error: there is no node `KSamplr`\nhint: did you mean `KSampler`?\n");
    let all: serde_json::Value = serde_json::from_str(&paraflow(base.path(), &["nodes", "--json"]).stdout).unwrap();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|node| node["name"].as_str().unwrap()).collect();
    for name in ["CheckpointLoaderSimple", "CLIPTextEncode", "KSamplerAdvanced", "LoadImageMask", "SetLatentNoiseMask"]
    {
        assert!(names.contains(&name), "{name} is missing");
    }
}

#[test]
fn wrong_usage_is_code_2() {
    let base = base();
    assert_eq!(paraflow(base.path(), &["rum"]).code, 2);
    assert_eq!(paraflow(base.path(), &["run"]).code, 2);
    assert_eq!(paraflow(base.path(), &["run", "x.json", "--timeout", "soon"]).code, 2);
    for set in ["seed", "seed=7", ".seed=7", "KSampler.=7", "KSampler.seed"] {
        let ran = paraflow(base.path(), &["run", &graph("text-to-image"), "--set", set]);
        assert_eq!(ran.code, 2, "{set}: {}", ran.stderr);
        let told =
            format!("error: --set: `{set}` is not of the form NODE.INPUT=VALUE\nhint: for example `KSampler.seed=7`\n");
        assert_eq!(ran.stderr, told);
    }
    let ran =
        paraflow(base.path(), &["check", &graph("text-to-image"), "--set", "seed", "--set", "a.b=1", "--set", "7"]);
    let told = ran.stderr.matches("is not of the form NODE.INPUT=VALUE").count();
    assert_eq!((ran.code, told), (2, 2), "{}", ran.stderr);
}

#[test]
fn a_file_where_results_should_go_is_told_before_anything_runs() {
    let base = base();
    let file = written(base.path(), "pictures", "mine");
    let ran = paraflow(base.path(), &["run", &graph("text-to-image"), "--out", &file]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("`BASE/pictures` is a file, not a folder"), "{}", ran.stderr);
    assert!(ran.stderr.contains("results go into a folder"), "{}", ran.stderr);
    assert_eq!(fs::read(base.path().join("pictures")).unwrap(), b"mine");
}

#[test]
fn a_run_out_of_time_is_code_124_and_leaves_nothing() {
    let base = base();
    let args = ["run", &graph("text-to-image"), "--set", "KSampler.steps=10000", "--timeout", "1500ms"];
    let ran = paraflow(base.path(), &args);
    assert_eq!(ran.code, 124, "{}", ran.stderr);
    assert!(ran.stderr.contains("error: out of time after 1s 500ms"), "{}", ran.stderr);
    assert!(pictures(&base.path().join("output")).is_empty());
}

#[cfg(unix)]
#[test]
fn interrupting_a_run_is_code_130() {
    let base = base();
    let child = command(base.path(), &["run", &graph("text-to-image"), "--set", "KSampler.steps=10000"])
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Before its handler stands, the signal would end the process: try until it has begun.
    std::thread::sleep(Duration::from_secs(2));
    let asked = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(30), "it hangs");
    assert!(pictures(&base.path().join("output")).is_empty());
}

#[test]
fn files_that_are_no_model_are_named_for_what_they_are() {
    let base = base();
    let files = [
        ("empty.safetensors", b"".as_slice()),
        ("short.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":"),
        ("huge.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}"),
        ("page.safetensors", b"<!DOCTYPE html><html><body>Not found</body></html>"),
        ("pickle.ckpt", b"\x80\x02}q\x00X\x05\x00\x00\x00stateq\x01."),
        ("zip.pt", b"PK\x03\x04\x00\x00\x00\x00archive/data.pkl"),
    ];
    let mut told = String::new();
    for (name, content) in files {
        let ran = paraflow(base.path(), &["models", "inspect", &written(base.path(), name, content)]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{name}");
        told += &ran.stderr;
    }
    insta::assert_snapshot!("no_model", told);
    // Of pickles, one kind is read.
    let saved = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/photomaker/saved.bin");
    let ran = paraflow(base.path(), &["models", "inspect", saved]);
    assert!(ran.code == 0 && ran.stdout.contains("a PhotoMaker id encoder"), "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn a_missing_picture_and_a_broken_one_are_told_before_anything_runs() {
    let base = base();
    fs::create_dir(base.path().join("input")).unwrap();
    written(base.path(), "input/broken.png", b"\x89PNG\r\n\x1a\n\x00\x00");
    let mut told = String::new();
    for name in ["absent.png", "broken.png"] {
        let set = format!("LoadImage.image={name}");
        let ran = paraflow(base.path(), &["run", &graph("image-to-image"), "--set", &set]);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{name}");
        told += &ran.stderr;
    }
    insta::assert_snapshot!("pictures", told);
    assert!(pictures(&base.path().join("output")).is_empty());
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let base = base();
    written(base.path(), "taken", "a file where the folder should be");
    let args = ["run", &graph("text-to-image"), "--set", "KSampler.steps=1", "--out", "taken"];
    let ran = paraflow(base.path(), &args);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("BASE/taken"), "{}", ran.stderr);
    assert_eq!(fs::read(base.path().join("taken")).unwrap(), b"a file where the folder should be");
}

/// The model that the program brings as a folder of diffusers, as one file again, and as a folder once more: the parts of both
/// folders are equal to the byte.
#[test]
fn a_checkpoint_becomes_a_folder_of_diffusers_and_one_file_again() {
    let base = base();
    let convert = |from: &str, to: &str| paraflow(base.path(), &["models", "convert", from, to]);
    let there = convert("toyland.safetensors", "folder");
    assert_eq!((there.code, there.stderr.as_str()), (0, ""));
    for file in
        ["model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json", "tokenizer/merges.txt"]
    {
        assert!(
            there.stdout.contains(file) && base.path().join("folder").join(file).is_file(),
            "{file}: {}",
            there.stdout
        );
    }
    assert_eq!(convert("folder", "one.safetensors").code, 0);
    let inspected = paraflow(base.path(), &["models", "inspect", "one.safetensors"]);
    assert!(inspected.stdout.contains("Stable Diffusion 1.x"), "{}", inspected.stdout);
    assert_eq!(convert("one.safetensors", "again").code, 0);
    for part in ["unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model"] {
        let read = |folder: &str| fs::read(base.path().join(format!("{folder}/{part}.safetensors"))).unwrap();
        assert!(read("folder") == read("again"), "{part}");
    }
    let taken = convert("one.safetensors", "folder");
    assert_eq!(taken.code, 1);
    assert!(taken.stderr.contains("is there already"), "{}", taken.stderr);
}

#[test]
fn a_lora_gets_the_names_of_another_program_and_its_own_again() {
    let base = base();
    let module = "lora_unet_down_blocks_0_attentions_0_proj_in";
    let header = format!(
        r#"{{"{module}.alpha":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}},"{module}.lora_down.weight":{{"dtype":"F16","shape":[1,2],"data_offsets":[4,8]}},"{module}.lora_up.weight":{{"dtype":"F16","shape":[2,1],"data_offsets":[8,12]}}}}"#
    );
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend([0, 0, 0, 63, 1, 2, 3, 4, 5, 6, 7, 8]);
    written(base.path(), "kohya.safetensors", &file);
    let silent = paraflow(base.path(), &["models", "convert", "kohya.safetensors", "x.safetensors"]);
    assert_eq!(silent.code, 1);
    assert!(silent.stderr.contains("--to kohya"), "{}", silent.stderr);
    let convert = |from: &str, to: &str, style: &str| {
        let ran = paraflow(base.path(), &["models", "convert", from, to, "--to", style]);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{style}");
    };
    convert("kohya.safetensors", "peft.safetensors", "diffusers");
    let peft = fs::read(base.path().join("peft.safetensors")).unwrap();
    let text = String::from_utf8_lossy(&peft);
    assert!(
        text.contains("unet.down_blocks.0.attentions.0.proj_in.lora_A.weight") && text.contains("lora_alpha"),
        "{text}"
    );
    convert("peft.safetensors", "back.safetensors", "kohya");
    let back = fs::read(base.path().join("back.safetensors")).unwrap();
    let numbers = |file: &[u8]| file[8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize..].to_vec();
    let mut sorted = [numbers(&back), numbers(&file)];
    sorted.iter_mut().for_each(|bytes| bytes.sort_unstable());
    assert_eq!(sorted[0], sorted[1]);
    assert!(String::from_utf8_lossy(&back).contains(&format!("{module}.lora_down.weight")));
}

/// The model that the program brings as a file, which is mapped, and a folder for its packed weights.
#[test]
fn a_picture_is_the_same_from_packed_weights_that_were_kept() {
    let base = base();
    fs::create_dir_all(base.path().join("models/checkpoints")).unwrap();
    let file = "models/checkpoints/mapped.safetensors";
    assert_eq!(paraflow(base.path(), &["models", "convert", "toyland.safetensors", file]).code, 0);
    let draw = |out: &str, more: &[&str]| {
        let graph = graph("text-to-image");
        let sets = ["CheckpointLoaderSimple.ckpt_name=mapped.safetensors", "KSampler.steps=2"];
        let args = ["run", &graph, "--out", out, "--set", sets[0], "--set", sets[1]];
        let ran = paraflow(base.path(), &[&args, more].concat());
        assert_eq!(ran.code, 0, "{out}: {}", ran.stderr);
        let warnings: Vec<String> =
            ran.stderr.lines().filter(|line| line.starts_with("warning: ")).map(str::to_owned).collect();
        (fs::read(&pictures(&base.path().join(out))[0]).unwrap(), warnings)
    };
    let told = |args: &[&str]| {
        let ran = paraflow(base.path(), &[&["models", "prepacked", "kept"], args].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    };
    let kept = ["--prepacked", "kept"];
    let plain = draw("plain", &[]);
    assert_eq!(plain.1, [] as [String; 0]);
    assert!(draw("first", &kept) == plain);
    let held = told(&[]);
    let count: usize = held.split(' ').next().unwrap().parse().unwrap();
    assert!(count > 50 && held.contains(" packed weights, 0.0"), "{held}");
    assert!(draw("second", &kept) == plain);
    assert_eq!(told(&[]), held);

    let packed = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "packed");
    let damaged = pictures(&base.path().join("kept")).into_iter().find(packed).unwrap();
    let mut bytes = fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&damaged, bytes).unwrap();
    let (picture, warnings) = draw("third", &kept);
    assert!(picture == plain.0);
    assert!(warnings.len() == 1 && warnings[0].contains("has other numbers than were written"), "{warnings:?}");
    assert!(draw("fourth", &kept) == plain);
    assert_eq!(told(&["--empty"]), format!("removed: {held}"));
    assert!(told(&[]).starts_with("0 packed weights"));
    let refused = paraflow(base.path(), &["run", &graph("text-to-image"), "--prepacked", file]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("mapped.safetensors`: cannot be written")
            && refused.stderr.contains("hint: name another folder")
    );
}

//! Training through the binary: what survives a kill, and what a person is told.
//!
//! Each test has a base directory of its own, with pictures of a subject that ships.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use serde_json::{Value as Json, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const SUBJECTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/graphs/subjects");

/// A base directory with the pictures of a subject in `input/`.
fn base(subject: &str) -> tempfile::TempDir {
    let base = tempfile::tempdir().unwrap();
    let folder = base.path().join("input").join(subject);
    fs::create_dir_all(&folder).unwrap();
    for entry in fs::read_dir(format!("{SUBJECTS}/{subject}")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    base
}

/// A training of a few steps whose loss is saved as a picture.
fn graph(steps: u32) -> Json {
    let node = |class: &str, inputs: Json| json!({"class_type": class, "inputs": inputs});
    json!({
        "1": node("CheckpointLoaderSimple", json!({"ckpt_name": "toyland.safetensors"})),
        "2": node("LoadSubject", json!({"folder": "captain", "fit": "crop"})),
        "3": node("PaRaTrain", json!({
            "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "subject": ["2", 0], "steps": steps, "batch_size": 2,
            "ema": 0.9, "caption_dropout": 0.2, "validate_every": 2, "state": "captain", "save_every": 1,
        })),
        "4": node("LossPlot", json!({"loss": ["3", 1]})),
        "5": node("SaveImage", json!({"images": ["4", 0], "filename_prefix": "loss"})),
    })
}

fn command(base: &Path, graph: &Json) -> Command {
    fs::write(base.join("graph.json"), graph.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_paraflow"));
    command.args(["run", "graph.json", "--base-dir"]).arg(base).current_dir(base).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

fn state(base: &Path) -> PathBuf {
    base.join("output/captain.para-state.safetensors")
}

/// Kills the process at once when its state is of at least that step.
#[cfg(unix)]
fn kill_after(base: &Path, graph: &Json, step: u64) {
    let mut child = command(base, graph).spawn().unwrap();
    loop {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        if steps_done(base) >= step {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// The step that the state file tells, 0 if there is none.
#[cfg(unix)]
fn steps_done(base: &Path) -> u64 {
    steps_in(&state(base))
}

#[cfg(unix)]
fn steps_in(state: &Path) -> u64 {
    let Ok(bytes) = fs::read(state) else { return 0 };
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Json = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let told: Json = serde_json::from_str(header["__metadata__"]["para-state"].as_str().unwrap()).unwrap();
    told["step"].as_u64().unwrap()
}

#[cfg(unix)]
#[test]
fn a_training_whose_state_has_no_name_goes_on_as_well_and_leaves_nothing() {
    let (whole, parts) = (base("captain"), base("captain"));
    let mut graph = graph(9);
    let inputs = graph["3"]["inputs"].as_object_mut().unwrap();
    inputs.remove("state");
    inputs.insert("sample_every".into(), 2.into());
    inputs.insert("sample_steps".into(), 1.into());
    graph["6"] = json!({"class_type": "SaveImage", "inputs": {"images": ["3", 2], "filename_prefix": "sample"}});
    finish(&command(whole.path(), &graph).output().unwrap());
    let states = |base: &tempfile::TempDir| {
        let entries = fs::read_dir(base.path().join("user/trainings")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().path());
        names.filter(|path| path.to_str().unwrap().ends_with(".safetensors")).collect::<Vec<_>>()
    };
    assert_eq!(states(&whole), [] as [PathBuf; 0]);
    let mut child = command(parts.path(), &graph).spawn().unwrap();
    while states(&parts).first().is_none_or(|path| steps_in(path) < 3) {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let kept = states(&parts);
    assert!(kept.len() == 1 && (3..9).contains(&steps_in(&kept[0])), "{kept:?}");
    // Another training does not find it.
    let mut other = graph.clone();
    other["3"]["inputs"]["seed"] = 5.into();
    other["5"]["inputs"]["filename_prefix"] = "other".into();
    other.as_object_mut().unwrap().remove("6");
    finish(&command(parts.path(), &other).output().unwrap());
    assert_eq!(states(&parts), kept);
    finish(&command(parts.path(), &graph).output().unwrap());
    assert_eq!(states(&parts), [] as [PathBuf; 0]);
    for number in 1..=5 {
        let name = format!("sample_{number:05}_.png");
        let read = |base: &tempfile::TempDir| fs::read(base.path().join("output").join(&name)).unwrap();
        assert!(read(&whole) == read(&parts), "{name} differs");
    }
    let read = |base: &tempfile::TempDir| fs::read(base.path().join("output/loss_00001_.png")).unwrap();
    assert!(read(&whole) == read(&parts), "the curve differs");
}

#[cfg(unix)]
#[test]
fn a_training_killed_again_and_again_ends_with_the_same_bytes() {
    let (whole, parts) = (base("captain"), base("captain"));
    finish(&command(whole.path(), &graph(9)).output().unwrap());
    for step in [1, 3, 6] {
        kill_after(parts.path(), &graph(9), step);
        assert!(steps_done(parts.path()) < 9, "it was killed too late to show anything");
    }
    finish(&command(parts.path(), &graph(9)).output().unwrap());
    assert_eq!(steps_done(parts.path()), 9);
    let same = |name: &str| {
        let read = |base: &tempfile::TempDir| fs::read(base.path().join("output").join(name)).unwrap();
        assert!(read(&whole) == read(&parts), "{name} differs");
    };
    same("captain.para-state.safetensors");
    same("loss_00001_.png");
}

/// The same training with its result saved; the program runs where files may not grow beyond some blocks of 512 bytes.
#[cfg(unix)]
fn saved_within(base: &Path, blocks: u32) -> Output {
    let mut graph = graph(2);
    graph["6"] = json!({"class_type": "PaRaSave", "inputs": {"para": ["3", 0], "filename_prefix": "loras/captain"}});
    fs::write(base.join("graph.json"), graph.to_string()).unwrap();
    let program = env!("CARGO_BIN_EXE_paraflow");
    // The program is told of the limit in place of being ended by it.
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec {program} run graph.json --base-dir .");
    Command::new("sh").args(["-c", &script]).current_dir(base).stdin(Stdio::null()).output().unwrap()
}

/// A disk without room for the adapter: the training's state is kept, nothing half-written is left, and with room again the
/// adapter is there without a step trained anew.
#[cfg(unix)]
#[test]
fn a_full_disk_while_an_adapter_is_saved_loses_nothing() {
    let base = base("captain");
    finish(&command(base.path(), &graph(2)).output().unwrap());
    let state_before = fs::read(state(base.path())).unwrap();
    let failed = saved_within(base.path(), 64);
    let told = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(failed.status.code(), Some(1), "{told}");
    assert!(told.contains("PaRaSave") && told.contains("captain_00001_.safetensors"), "{told}");
    assert!(fs::read(state(base.path())).unwrap() == state_before, "the state is as it was");
    let folder = base.path().join("output/loras");
    let left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
    finish(&saved_within(base.path(), 1 << 20));
    assert!(fs::metadata(folder.join("captain_00001_.safetensors")).unwrap().len() > 64 * 512);
    assert!(fs::read(state(base.path())).unwrap() == state_before, "no step was trained anew");
}

#[test]
fn a_picture_that_cannot_be_read_is_named_and_left_out() {
    let base = base("captain");
    fs::write(base.path().join("input/captain/1.png"), b"no picture").unwrap();
    let told = finish(&command(base.path(), &graph(1)).output().unwrap());
    assert!(told.contains("picture \"1.png\": "), "{told}");
    assert!(told.contains("the training goes without it"), "{told}");
}

#[test]
fn pictures_without_a_caption_get_the_template_s_and_are_counted() {
    let base = base("captain");
    let folder = base.path().join("input/captain");
    let _ = fs::remove_file(folder.join("subject.json"));
    fs::write(folder.join("0.txt"), "a sks captain on the beach").unwrap();
    let mut graph = graph(1);
    graph["2"]["inputs"]["class_word"] = "captain".into();
    let told = finish(&command(base.path(), &graph).output().unwrap());
    assert!(told.contains("4 of 5 pictures have no caption of their own and get the template's"), "{told}");
}

#[test]
fn a_folder_without_a_readable_picture_is_an_error() {
    let base = base("captain");
    for index in 0..5 {
        fs::write(base.path().join(format!("input/captain/{index}.png")), b"no picture").unwrap();
    }
    let output = command(base.path(), &graph(1)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("folder `captain` holds no picture that can be read"), "{told}");
    assert!(!state(base.path()).exists());
}

#[test]
fn an_empty_folder_is_an_error_with_what_to_put_there() {
    let base = base("captain");
    fs::remove_dir_all(base.path().join("input/captain")).unwrap();
    fs::create_dir(base.path().join("input/captain")).unwrap();
    let output = command(base.path(), &graph(1)).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("captain") && told.contains("hint: "), "{told}");
    assert!(!state(base.path()).exists());
}

/// Samples that cannot be made: a prompt that names a torn embedding. The run is a success, the adapter is there, and its
/// tensors are those of a training without samples.
#[test]
fn samples_that_cannot_be_made_are_warnings_and_the_adapter_is_the_same() {
    let base = base("captain");
    fs::create_dir_all(base.path().join("models/embeddings")).unwrap();
    fs::write(base.path().join("models/embeddings/torn.safetensors"), b"no tensors").unwrap();
    let mut graph = graph(2);
    graph["3"]["inputs"]["state"] = "".into();
    graph["6"] = json!({"class_type": "PaRaSave", "inputs": {"para": ["3", 0], "filename_prefix": "loras/captain"}});
    let made = |number: u32| {
        let bytes = fs::read(base.path().join(format!("output/loras/captain_{number:05}_.safetensors"))).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + length..].to_vec()
    };
    finish(&command(base.path(), &graph).output().unwrap());
    graph["3"]["inputs"]["sample_every"] = 1.into();
    graph["3"]["inputs"]["sample_prompt"] = "a {class}, embedding:torn".into();
    graph["7"] = json!({"class_type": "SaveImage", "inputs": {"images": ["3", 2], "filename_prefix": "sample"}});
    let told = finish(&command(base.path(), &graph).output().unwrap());
    assert!(told.contains("warning: node 3 (PaRaTrain): `sample_prompt` cannot be read"), "{told}");
    assert!(told.contains("torn.safetensors"), "{told}");
    assert!(told.contains("node 7 (SaveImage): not run: the training made no sample picture"), "{told}");
    assert!(made(1) == made(2), "the tensors differ");
}

/// A disk that takes no state: a warning each time, and the training is done, samples and all.
#[cfg(unix)]
#[test]
fn a_full_disk_for_the_state_ends_no_training() {
    let base = base("captain");
    let mut graph = graph(2);
    graph["3"]["inputs"]["sample_every"] = 1.into();
    graph["3"]["inputs"]["sample_steps"] = 1.into();
    graph["5"] = json!({"class_type": "PreviewAny", "inputs": {"source": ["3", 1]}});
    graph.as_object_mut().unwrap().remove("4");
    fs::write(base.path().join("graph.json"), graph.to_string()).unwrap();
    let program = env!("CARGO_BIN_EXE_paraflow");
    let script = format!("trap '' XFSZ; ulimit -f 1; exec {program} run graph.json --base-dir .");
    let output =
        Command::new("sh").args(["-c", &script]).current_dir(base.path()).stdin(Stdio::null()).output().unwrap();
    let told = finish(&output);
    assert_eq!(told.matches("the training's state cannot be written").count(), 2, "{told}");
    assert!(!state(base.path()).exists());
    let parts = fs::read_dir(base.path().join("output")).into_iter().flatten();
    assert_eq!(parts.count(), 0, "no part of a state is left");
}

#[test]
fn the_shipped_training_makes_samples_and_a_curve() {
    let base = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_paraflow"));
    command
        .args(["run", concat!(env!("CARGO_MANIFEST_DIR"), "/graphs/train-para.json"), "--base-dir"])
        .arg(base.path());
    for set in ["steps=4", "sample_every=2", "sample_steps=2", "validate_every=1"] {
        command.args(["--set", &format!("PaRaTrain.{set}")]);
    }
    let output = command.current_dir(base.path()).stdin(Stdio::null()).output().unwrap();
    let told = finish(&output);
    let names: Vec<_> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(names.len(), 3, "two samples and a curve: {names:?}");
    assert!(names.iter().all(|name| fs::metadata(name).is_ok_and(|file| file.len() > 500)), "{names:?}");
    assert!(!told.contains("warning"), "{told}");
}

//! The server as a process: killed at any instant it loses no job, and on a signal it goes down in good order.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

/// A server on a port of its own. It is killed when dropped.
struct Served {
    process: Child,
    address: String,
}

impl Served {
    fn start(base: &Path, arguments: &[&str]) -> Self {
        let (process, address) = Self::launch(base, arguments);
        Self { process, address: address.expect("the server says where it listens") }
    }

    /// Starts the process, and waits until it listens or has ended.
    fn launch(base: &Path, arguments: &[&str]) -> (Child, Option<String>) {
        let process = Command::new(env!("CARGO_BIN_EXE_paraflow"))
            .args(["serve", "--port", "0", "--log", "error", "--base-dir"])
            .arg(base)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self::launched(process)
    }

    /// Waits until the process listens or has ended.
    fn launched(mut process: Child) -> (Child, Option<String>) {
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("http://").map(str::to_owned);
        (process, address)
    }

    fn get(&self, path: &str) -> Json {
        send(&self.address, "GET", path, "").unwrap().1
    }

    fn submit(&self, id: &str) -> Option<u16> {
        let body = json!({"prompt": prompt(id), "prompt_id": id}).to_string();
        send(&self.address, "POST", "/prompt", &body).map(|(status, _)| status)
    }

    /// Until nothing waits or runs.
    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(120);
        while self.get("/prompt")["exec_info"]["queue_remaining"] != 0 {
            assert!(Instant::now() < until, "the queue is not emptied");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One request on a connection of its own; `None` when the other end dies meanwhile.
fn send(address: &str, method: &str, path: &str, body: &str) -> Option<(u16, Json)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // A cut answer is none.
    (body.len() == length).then(|| (status, serde_json::from_str(body).unwrap_or(Json::Null)))
}

/// Reads a picture and saves it under the job's own name, so that no two jobs share a result.
fn prompt(id: &str) -> Json {
    json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": id}},
    })
}

/// A base directory with a small picture.
fn base() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("input")).unwrap();
    let file = fs::File::create(dir.path().join("input/a.png")).unwrap();
    let mut encoder = png::Encoder::new(file, 8, 8);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[100; 192]).unwrap();
    dir
}

/// Whether the file is a whole picture.
fn is_whole(path: &Path) -> bool {
    let Ok(file) = fs::File::open(path) else { return false };
    let Ok(mut reader) = png::Decoder::new(BufReader::new(file)).read_info() else { return false };
    let mut pixels = vec![0; reader.output_buffer_size().unwrap_or(0)];
    reader.next_frame(&mut pixels).is_ok() && reader.finish().is_ok()
}

/// A number below `end`, other in every run.
fn random(end: u64) -> u64 {
    RandomState::new().hash_one(Instant::now()) % end
}

/// When each job of the history ended, by id.
fn ended(server: &Served) -> BTreeMap<String, Json> {
    let jobs = server.get("/paraflow/v1/jobs?state=done,failed,cancelled&limit=1000");
    let jobs = jobs["jobs"].as_array().unwrap_or_else(|| panic!("{jobs}")).clone();
    jobs.into_iter().map(|job| (job["id"].as_str().unwrap().to_owned(), json!([job["state"], job["ended"]]))).collect()
}

const KILLS: usize = 200;

#[test]
fn killed_at_any_instant_the_books_are_right() {
    let dir = base();
    let mut accepted = BTreeSet::new();
    let mut first_end: BTreeMap<String, Json> = BTreeMap::new();
    let mut number = 0;
    for round in 0..KILLS {
        let arguments: &[&str] = if round % 2 == 0 { &["--no-sync"] } else { &[] };
        if round % 10 == 9 {
            // Before it listens, in the middle of putting its books in order.
            let mut process = Command::new(env!("CARGO_BIN_EXE_paraflow"))
                .args(["serve", "--port", "0", "--log", "error", "--base-dir"])
                .arg(dir.path())
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            thread::sleep(Duration::from_millis(random(40)));
            process.kill().unwrap();
            process.wait().unwrap();
            continue;
        }
        let mut server = Served::start(dir.path(), arguments);
        let address = server.address.clone();
        // Someone submits until the server is gone, and remembers what was answered.
        let (tell, first) = std::sync::mpsc::channel();
        let submitting = thread::spawn(move || {
            let mut answered = Vec::new();
            for at in number..number + 4 {
                let id = format!("job{at}");
                let body = json!({"prompt": prompt(&id), "prompt_id": id}).to_string();
                match send(&address, "POST", "/prompt", &body) {
                    Some((200, _)) => {
                        answered.push(id);
                        let _ = tell.send(());
                    }
                    Some((status, body)) => panic!("{status} {body}"),
                    None => break,
                }
            }
            answered
        });
        number += 4;
        if round % 2 == 0 {
            // However slow the machine is, half of the kills fall among jobs that were accepted.
            first.recv().unwrap();
        }
        thread::sleep(Duration::from_micros(random(60_000)));
        server.process.kill().unwrap();
        server.process.wait().unwrap();
        accepted.extend(submitting.join().unwrap());
        if round % 25 == 24 {
            let server = Served::start(dir.path(), &[]);
            for (id, end) in ended(&server) {
                assert_eq!(*first_end.entry(id.clone()).or_insert_with(|| end.clone()), end, "{id} ended twice");
            }
        }
    }

    let server = Served::start(dir.path(), &["--no-sync"]);
    server.wait();
    let last = ended(&server);
    assert!(accepted.len() >= KILLS / 2);
    for id in &accepted {
        let end = last.get(id).unwrap_or_else(|| panic!("{id} was accepted and is lost"));
        assert_eq!(end[0], "done", "{id}");
    }
    for (id, end) in &first_end {
        assert_eq!(last.get(id), Some(end), "{id} was over and ran again");
    }
    let output = dir.path().join("output");
    for entry in fs::read_dir(&output).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with('.') || is_whole(&path), "{name} is half-written");
    }
    for id in last.keys() {
        let files = server.get(&format!("/paraflow/v1/jobs/{id}/artefacts"));
        let file = output.join(files[0]["filename"].as_str().unwrap());
        assert!(is_whole(&file), "{id} is done, and its picture is not there");
        let hash = blake3::hash(&fs::read(&file).unwrap());
        assert_eq!(files[0]["blake3"], hash.to_hex().as_str());
    }
    eprintln!("{KILLS} kills, {} jobs accepted, {} ended", accepted.len(), last.len());
}

#[cfg(unix)]
#[test]
fn on_a_signal_the_running_job_is_finished_and_the_rest_waits() {
    let dir = base();
    let mut server = Served::start(dir.path(), &["--grace", "60s"]);
    for number in 0..20 {
        assert_eq!(server.submit(&format!("job{number}")), Some(200));
    }
    let killed = Command::new("kill").arg(server.process.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert_eq!(server.process.wait().unwrap().code(), Some(0));
    let server = Served::start(dir.path(), &[]);
    server.wait();
    let ended = ended(&server);
    assert_eq!(ended.len(), 20);
    assert!(ended.values().all(|end| end[0] == "done"), "{ended:?}");
    // Nothing was begun twice: a picture a job.
    assert_eq!(fs::read_dir(dir.path().join("output")).unwrap().count(), 20);
}

/// A short training of a subject that ships, with a sample picture every fourth step. Its state has a name, or none.
#[cfg(unix)]
fn training(base: &Path, steps: u32, state: &str) -> Json {
    let folder = base.join("input/captain");
    fs::create_dir(&folder).unwrap();
    for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/graphs/subjects/captain")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let node = |class: &str, inputs: Json| json!({"class_type": class, "inputs": inputs});
    json!({
        "1": node("CheckpointLoaderSimple", json!({"ckpt_name": "toyland.safetensors"})),
        "2": node("LoadSubject", json!({"folder": "captain", "fit": "crop"})),
        "3": node("PaRaTrain", json!({
            "model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "subject": ["2", 0], "steps": steps, "batch_size": 1,
            "validate_every": 0, "sample_every": 4, "sample_steps": 1, "state": state, "save_every": 1,
        })),
        "4": node("LossPlot", json!({"loss": ["3", 1]})),
        "5": node("SaveImage", json!({"images": ["4", 0], "filename_prefix": "loss"})),
        "6": node("SaveImage", json!({"images": ["3", 2], "filename_prefix": "sample"})),
    })
}

/// Whether a training has kept a state in the folder.
#[cfg(unix)]
fn has_state(folder: &Path) -> bool {
    let mut names = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().file_name());
    names.any(|name| name.to_str().unwrap().ends_with(".para-state.safetensors"))
}

/// The training is done: each sample picture is in the books once, each file is there, whole and with its hash, and the
/// node gave all of them.
#[cfg(unix)]
fn check_training(server: &Served, base: &Path, id: &str, steps: u32) {
    let files = server.get(&format!("/paraflow/v1/jobs/{id}/artefacts"));
    let files = files.as_array().unwrap();
    let mut told: Vec<u64> = files.iter().filter_map(|file| file["step"].as_u64()).collect();
    told.sort_unstable();
    let expected: Vec<u64> = (1..=u64::from(steps)).filter(|step| step % 4 == 0).collect();
    assert_eq!(told, expected, "{files:?}");
    for file in files {
        let text = |key: &str| file[key].as_str().unwrap();
        let path = base.join(text("type")).join(text("subfolder")).join(text("filename"));
        assert!(is_whole(&path), "{file}");
        assert_eq!(file["blake3"], blake3::hash(&fs::read(&path).unwrap()).to_hex().as_str());
    }
    let given = files.iter().filter(|file| file["node"] == "6").count();
    assert_eq!(given, expected.len(), "the node gave all pictures, those of before too: {files:?}");
}

/// What server-sent events told of a training.
#[cfg(unix)]
#[derive(Default)]
struct Followed {
    /// The steps of the loss points.
    losses: Vec<u64>,
    /// The steps that were trained meanwhile.
    trained: Vec<u64>,
    /// The steps of the sample pictures.
    samples: Vec<u64>,
}

/// Follows a job until there is enough, or to the end of the stream.
#[cfg(unix)]
fn follow(address: &str, id: &str, enough: fn(&Followed) -> bool) -> Followed {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let head = format!("GET /paraflow/v1/jobs/{id}/events HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let (mut followed, mut kind) = (Followed::default(), String::new());
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        if let Some(event) = line.strip_prefix("event: ") {
            kind = event.to_owned();
        }
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let data: Json = serde_json::from_str(data).unwrap();
        match kind.as_str() {
            "paraflow.loss" => followed.losses.push(data["step"].as_u64().unwrap()),
            "paraflow.sample" => followed.samples.push(data["step"].as_u64().unwrap()),
            "progress" if data["node"] == "3" && data["value"] != 0 => {
                followed.trained.push(data["value"].as_u64().unwrap());
            }
            _ => {}
        }
        if enough(&followed) {
            break;
        }
    }
    followed
}

/// Whoever follows a training that goes on is told its curve from the first step to the last, each point once, and all of its
/// samples; none of the steps of before is trained again.
#[cfg(unix)]
fn check_resumed(address: &str, steps: u32) {
    let Followed { losses, trained, mut samples } = follow(address, "train", |_| false);
    assert_eq!(losses, (1..=u64::from(steps)).collect::<Vec<_>>(), "the whole curve");
    assert!(trained.first().is_some_and(|&first| first > 1), "it began anew: {trained:?}");
    assert!(trained.windows(2).all(|pair| pair[1] == pair[0] + 1), "{trained:?}");
    assert_eq!(trained.last(), Some(&u64::from(steps)));
    samples.sort_unstable();
    samples.dedup();
    assert_eq!(samples, (1..=u64::from(steps)).filter(|step| step % 4 == 0).collect::<Vec<_>>(), "all samples");
}

/// The first point of the curve was told.
#[cfg(unix)]
fn has_begun(followed: &Followed) -> bool {
    !followed.losses.is_empty()
}

#[cfg(unix)]
#[test]
fn a_training_that_was_killed_goes_on_from_its_last_state() {
    const STEPS: u32 = 24;
    // Where the graph names no state, the server keeps one until the job is done.
    for (name, folder) in [("captain", "output"), ("", "user/trainings")] {
        let dir = base();
        let graph = training(dir.path(), STEPS, name);
        let mut server = Served::start(dir.path(), &[]);
        let body = json!({"graph": graph, "id": "train"}).to_string();
        assert_eq!(send(&server.address, "POST", "/paraflow/v1/jobs", &body).unwrap().0, 201);
        assert_eq!(follow(&server.address, "train", has_begun).losses, [1]);
        // The first state is written after the first point is told.
        while !has_state(&dir.path().join(folder)) {
            thread::sleep(Duration::from_millis(2));
        }
        server.process.kill().unwrap();
        server.process.wait().unwrap();

        let server = Served::start(dir.path(), &[]);
        check_resumed(&server.address, STEPS);
        let job = server.get("/paraflow/v1/jobs/train/wait?timeout=60");
        assert_eq!((&job["state"], &job["attempts"]), (&json!("done"), &json!(2)));
        check_training(&server, dir.path(), "train", STEPS);
        assert_eq!(has_state(&dir.path().join(folder)), !name.is_empty(), "one without a name goes with the job's end");
    }
}

#[cfg(unix)]
#[test]
fn a_training_is_parked_on_a_signal_and_goes_on_after_it() {
    const STEPS: u32 = 24;
    let dir = base();
    let graph = training(dir.path(), STEPS, "");
    // Its state is written when it is stopped, and not before.
    let mut graph = graph;
    graph["3"]["inputs"]["save_every"] = 0.into();
    let mut server = Served::start(dir.path(), &["--grace", "0s"]);
    let body = json!({"graph": graph, "id": "train"}).to_string();
    assert_eq!(send(&server.address, "POST", "/paraflow/v1/jobs", &body).unwrap().0, 201);
    assert_eq!(follow(&server.address, "train", has_begun).losses, [1]);
    assert!(Command::new("kill").arg(server.process.id().to_string()).status().unwrap().success());
    assert_eq!(server.process.wait().unwrap().code(), Some(0));
    assert!(has_state(&dir.path().join("user/trainings")));
    let server = Served::start(dir.path(), &[]);
    check_resumed(&server.address, STEPS);
    let job = server.get("/paraflow/v1/jobs/train/wait?timeout=60");
    assert_eq!((&job["state"], &job["attempts"]), (&json!("done"), &json!(1)), "a parked job has not been tried");
    check_training(&server, dir.path(), "train", STEPS);
}

/// Fewer than the deaths after which a job is given up.
#[cfg(unix)]
const DEATHS: usize = 8;

#[cfg(unix)]
#[test]
fn a_training_among_other_jobs_is_killed_again_and_again_and_the_books_are_right() {
    const STEPS: u32 = 24;
    let dir = base();
    let graph = training(dir.path(), STEPS, "");
    let body = json!({"graph": graph, "id": "train"}).to_string();
    let (mut accepted, mut kills, mut last_step) = (Vec::new(), 0, 0);
    while kills < DEATHS {
        let mut server = Served::start(dir.path(), &["--jobs-at-once", "2"]);
        if kills == 0 {
            assert_eq!(send(&server.address, "POST", "/paraflow/v1/jobs", &body).unwrap().0, 201);
        }
        for number in 0..3 {
            let id = format!("job{kills}-{number}");
            assert_eq!(server.submit(&id), Some(200));
            accepted.push(id);
        }
        if kills % 2 == 1 {
            // However slow the machine is, half of the kills fall on a training that goes on.
            let followed = follow(&server.address, "train", |followed| !followed.trained.is_empty());
            let Some(&step) = followed.trained.first() else { break };
            assert!(step > last_step, "step {step} was done before: {last_step} was kept");
            last_step = step - 1;
        }
        thread::sleep(Duration::from_micros(random(400_000)));
        server.process.kill().unwrap();
        server.process.wait().unwrap();
        kills += 1;
    }
    let server = Served::start(dir.path(), &[]);
    server.wait();
    let ended = ended(&server);
    assert_eq!(ended.len(), accepted.len() + 1);
    assert!(ended.values().all(|end| end[0] == "done"), "{ended:?}");
    for id in &accepted {
        let files = server.get(&format!("/paraflow/v1/jobs/{id}/artefacts"));
        assert_eq!(files.as_array().unwrap().len(), 1, "{id}");
        assert!(is_whole(&dir.path().join("output").join(files[0]["filename"].as_str().unwrap())), "{id}");
    }
    check_training(&server, dir.path(), "train", STEPS);
    assert!(!has_state(&dir.path().join("user/trainings")));
    eprintln!("{kills} kills, {} jobs beside a training of {STEPS} steps", accepted.len());
}

#[test]
fn wrong_settings_are_told_with_a_way_out() {
    let dir = base();
    for (arguments, expected) in [
        (&["--listen", "0.0.0.0"][..], "hint: give `--token`"),
        (&["--token", "short"][..], "the token is too short"),
        (&["--front-end-root", "nowhere"][..], "has no index.html"),
        (&["--config", "none.toml"][..], "cannot read `none.toml`"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_paraflow"))
            .args(["serve", "--port", "0", "--base-dir"])
            .arg(dir.path())
            .args(arguments)
            .output()
            .unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(expected), "{told}");
    }
    fs::write(dir.path().join("paraflow.toml"), "prot = 1\n").unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_paraflow")).args(["serve", "--base-dir"]).arg(dir.path()).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("unknown field `prot`"), "{told}");
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let dir = base();
    fs::write(dir.path().join("paraflow.toml"), "max_upload_size = 1\nmulti_user = true\nport = 1\n").unwrap();
    fs::write(dir.path().join("other.toml"), "max_upload_size = 5\n").unwrap();
    let other = dir.path().join("other.toml");
    let limit = |variable: Option<&str>, flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_paraflow"));
        command.args(["serve", "--port", "0", "--log", "error", "--base-dir"]).arg(dir.path()).args(flags);
        command.envs(variable.map(|megabytes| ("PARAFLOW_MAX_UPLOAD_SIZE", megabytes)));
        let (process, address) = Served::launched(command.stdout(Stdio::piped()).spawn().unwrap());
        let server = Served { process, address: address.unwrap() };
        let is_multi_user = server.get("/users").get("users").is_some();
        (server.get("/features")["max_upload_size"].as_u64().unwrap() >> 20, is_multi_user)
    };
    assert_eq!(limit(None, &[]), (1, true));
    assert_eq!(limit(Some("2"), &[]), (2, true));
    assert_eq!(limit(Some("2"), &["--max-upload-size", "3"]), (3, true));
    assert_eq!(limit(None, &["--config", other.to_str().unwrap()]), (5, false));
}

#[cfg(unix)]
#[test]
fn each_line_of_the_log_about_a_job_names_it() {
    let dir = base();
    let mut command = Command::new(env!("CARGO_BIN_EXE_paraflow"));
    command.args(["serve", "--port", "0", "--log-json", "--base-dir"]).arg(dir.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut log = process.stderr.take().unwrap();
    let (process, address) = Served::launched(process);
    let mut server = Served { process, address: address.unwrap() };
    assert_eq!(server.submit("logged"), Some(200));
    server.wait();
    assert!(Command::new("kill").arg(server.process.id().to_string()).status().unwrap().success());
    assert_eq!(server.process.wait().unwrap().code(), Some(0));
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    let lines: Vec<Json> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for message in ["job begins", "job ends"] {
        let line = lines.iter().find(|line| line["fields"]["message"] == message);
        assert_eq!(line.map(|line| &line["span"]["id"]), Some(&json!("logged")), "{message}: {text}");
    }
}

#[test]
fn pictures_are_read_and_saved_where_comfyuis_flags_say() {
    let (dir, inputs) = (tempfile::tempdir().unwrap(), base());
    let (input, output) = (inputs.path().join("input"), dir.path().join("elsewhere"));
    let flags = ["--input-directory", input.to_str().unwrap(), "--output-directory", output.to_str().unwrap()];
    let server = Served::start(dir.path(), &flags);
    assert_eq!(server.submit("kept"), Some(200));
    server.wait();
    assert!(is_whole(&output.join("kept_00001_.png")));
}

#[test]
fn a_second_server_over_the_same_folder_is_refused() {
    let dir = base();
    let _first = Served::start(dir.path(), &[]);
    let (mut second, address) = Served::launch(dir.path(), &[]);
    assert_eq!(address, None);
    assert_eq!(second.wait().unwrap().code(), Some(1));
}

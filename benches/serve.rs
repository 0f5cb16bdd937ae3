//! What the server costs: `cargo bench --bench serve`. Prints figures; `docs/benchmarks.md` holds those that were taken.
//!
//! Starts the program itself, and speaks HTTP over plain connections that stay open.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and ends where something fails")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

struct Served {
    process: Child,
    address: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(base: &Path, arguments: &[&str]) -> Served {
    let mut process = Command::new(env!("CARGO_BIN_EXE_paraflow"))
        .args(["serve", "--port", "0", "--log", "error", "--base-dir"])
        .arg(base)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").unwrap().to_owned();
    Served { process, address }
}

/// A connection that stays open.
struct Connection {
    stream: BufReader<TcpStream>,
    host: String,
}

impl Connection {
    fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream), host: address.to_owned() }
    }

    fn send(&mut self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{body}", self.host, body.len());
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        body
    }

    fn json(&mut self, method: &str, path: &str, body: &str) -> Json {
        let body = self.send(method, path, body);
        serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&body)))
    }
}

fn prompt(prefix: &str) -> Json {
    json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "a.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    })
}

/// The `q`th of a hundred.
fn percentile(times: &mut [Duration], q: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * q / 100).min(times.len() - 1)]
}

/// Megabytes of memory that the process has now, and at most had.
fn memory(server: &Served) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1024.0
    };
    format!("{:.0} MB resident, {:.0} MB at most", field("VmRSS"), field("VmHWM"))
}

fn base() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("input")).unwrap();
    let mut encoder = png::Encoder::new(fs::File::create(dir.path().join("input/a.png")).unwrap(), 8, 8);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&[100; 192]).unwrap();
    dir
}

/// Prompts a second that are stored while nothing runs.
fn accepted(base: &Path, arguments: &[&str], clients: usize) {
    const EACH: usize = 250;
    let server = start(base, arguments);
    Connection::open(&server.address).send("PUT", "/paraflow/v1/queue", r#"{"paused": true}"#);
    let begun = Instant::now();
    thread::scope(|scope| {
        for client in 0..clients {
            let address = &server.address;
            scope.spawn(move || {
                let mut connection = Connection::open(address);
                for number in 0..EACH {
                    let body = json!({"prompt": prompt(&format!("c{client}n{number}"))}).to_string();
                    assert!(connection.json("POST", "/prompt", &body)["prompt_id"].is_string());
                }
            });
        }
    });
    let rate = (clients * EACH) as f64 / begun.elapsed().as_secs_f64();
    println!("{clients:>3} clients {arguments:?}: {rate:.0} prompts/s stored");
    let mut connection = Connection::open(&server.address);
    connection.send("POST", "/queue", r#"{"clear": true}"#);
    connection.send("PUT", "/paraflow/v1/queue", r#"{"paused": false}"#);
}

/// Requests a second on one connection.
fn rate(server: &Served, path: &str) {
    const COUNT: u32 = 2000;
    let mut connection = Connection::open(&server.address);
    let bytes = connection.send("GET", path, "").len();
    let begun = Instant::now();
    for _ in 0..COUNT {
        connection.send("GET", path, "");
    }
    println!("GET {path} ({bytes} bytes): {:.0} requests/s", f64::from(COUNT) / begun.elapsed().as_secs_f64());
}

fn main() {
    let dir = base();
    let mut starts = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        let server = start(dir.path(), &[]);
        Connection::open(&server.address).send("GET", "/queue", "");
        starts.push(begun.elapsed());
    }
    println!("start to first answer: {:?} (median of 20)", percentile(&mut starts, 50));

    for (clients, arguments) in [(1, &[][..]), (16, &[]), (1, &["--no-sync"]), (16, &["--no-sync"])] {
        accepted(dir.path(), arguments, clients);
    }

    let server = start(dir.path(), &[]);
    println!("idle: {}", memory(&server));
    rate(&server, "/queue");
    rate(&server, "/object_info");
    rate(&server, "/view?filename=a.png&type=input");

    let mut connection = Connection::open(&server.address);
    let mut times = Vec::new();
    for number in 0..1000 {
        let id = format!("cached{number}");
        let body = json!({"graph": prompt("cached"), "id": id}).to_string();
        let begun = Instant::now();
        connection.send("POST", "/paraflow/v1/jobs", &body);
        let job = connection.json("GET", &format!("/paraflow/v1/jobs/{id}/wait"), "");
        assert_eq!(job["state"], "done");
        times.push(begun.elapsed());
    }
    let (half, most) = (percentile(&mut times, 50), percentile(&mut times, 99));
    println!("cached graph, submitted to stored result: {half:?} median, {most:?} at 99 %");

    for round in 0..5 {
        let begun = Instant::now();
        for number in 0..2000 {
            let body = json!({"prompt": prompt(&format!("r{round}/n{number}"))}).to_string();
            connection.send("POST", "/prompt", &body);
        }
        while connection.json("GET", "/prompt", "")["exec_info"]["queue_remaining"] != 0 {
            thread::sleep(Duration::from_millis(5));
        }
        println!("{} jobs: {:.1} s for 2000, {}", (round + 1) * 2000, begun.elapsed().as_secs_f64(), memory(&server));
    }
}

//! What the server costs: `cargo bench --bench serve`. Prints figures; `docs/benchmarks.md` holds those that were taken.
//!
//! Starts the program itself, a new one for each question, and speaks HTTP and WebSocket over plain connections that
//! stay open. `cargo bench --bench serve -- clients` asks only what has that word in its name; `PARAFLOW_BENCHED` names another
//! program to ask.

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
    let program = std::env::var("PARAFLOW_BENCHED").unwrap_or_else(|_| env!("CARGO_BIN_EXE_paraflow").to_owned());
    let mut process = Command::new(program)
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
    println!("{clients:>3} clients {arguments:?}: {rate:.0} prompts/s stored; {}", memory(&server));
    let mut connection = Connection::open(&server.address);
    connection.send("POST", "/queue", r#"{"clear": true}"#);
    connection.send("PUT", "/paraflow/v1/queue", r#"{"paused": false}"#);
}

/// Requests a second, and how long one takes, with so many connections that ask without a pause.
fn rate(server: &Served, path: &str, connections: usize) {
    const SECONDS: u64 = 3;
    let until = Instant::now() + Duration::from_secs(SECONDS);
    let mut bytes = 0;
    let mut times = thread::scope(|scope| {
        let ask = || {
            let mut connection = Connection::open(&server.address);
            let (mut times, mut bytes) = (Vec::new(), 0);
            while Instant::now() < until {
                let begun = Instant::now();
                bytes = connection.send("GET", path, "").len();
                times.push(begun.elapsed());
            }
            (times, bytes)
        };
        let asking: Vec<_> = (0..connections).map(|_| scope.spawn(ask)).collect();
        let mut all = Vec::new();
        for asked in asking {
            let (times, size) = asked.join().unwrap();
            all.extend(times);
            bytes = size;
        }
        all
    });
    let rate = times.len() as u64 / SECONDS;
    let (half, most) = (percentile(&mut times, 50), percentile(&mut times, 99));
    println!(
        "GET {path} ({bytes} bytes), {connections} connections: {rate} requests/s, {half:?} median, {most:?} at 99 %"
    );
}

fn starts() {
    let dir = base();
    let mut starts = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        let server = start(dir.path(), &[]);
        Connection::open(&server.address).send("GET", "/queue", "");
        starts.push(begun.elapsed());
    }
    println!("start to first answer: {:?} (median of 20)", percentile(&mut starts, 50));
    let server = start(dir.path(), &[]);
    Connection::open(&server.address).send("GET", "/queue", "");
    println!("idle: {}", memory(&server));
}

fn durable() {
    let dir = base();
    for (clients, arguments) in [(1, &[][..]), (16, &[]), (1, &["--no-sync"]), (16, &["--no-sync"])] {
        accepted(dir.path(), arguments, clients);
    }
}

fn requests() {
    let dir = base();
    let server = start(dir.path(), &[]);
    let mut connection = Connection::open(&server.address);
    connection.send("PUT", "/paraflow/v1/queue", r#"{"paused": true}"#);
    for number in 0..100 {
        connection.send("POST", "/prompt", &json!({"prompt": prompt(&format!("n{number}"))}).to_string());
    }
    for connections in [1, 64] {
        for path in ["/object_info", "/queue", "/prompt", "/api/jobs?limit=50", "/view?filename=a.png&type=input"] {
            rate(&server, path, connections);
        }
    }
    println!("under these requests: {}", memory(&server));
}

/// A graph of which everything is there: what it costs to ask for it.
fn cached() {
    let dir = base();
    let server = start(dir.path(), &[]);
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
    println!("cached graph, submitted to stored result: {half:?} median, {most:?} at 99 %; {}", memory(&server));
    let mut socket = Socket::open(&server.address, "me");
    let (mut accepted, mut executed, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    let body = json!({"prompt": prompt("cached"), "client_id": "me"}).to_string();
    for _ in 0..1000 {
        let begun = Instant::now();
        connection.send("POST", "/prompt", &body);
        accepted.push(begun.elapsed());
        loop {
            let frame = socket.next();
            match frame["type"].as_str().unwrap() {
                "executed" => executed.push(begun.elapsed()),
                "execution_success" => stored.push(begun.elapsed()),
                "executing" if frame["data"]["node"].is_null() => break,
                _ => {}
            }
        }
    }
    for (what, times) in [("accepted", &mut accepted), ("`executed`", &mut executed), ("stored", &mut stored)] {
        let (half, most) = (percentile(times, 50), percentile(times, 99));
        println!("the same over ComfyUI's API, until {what}: {half:?} median, {most:?} at 99 %");
    }
}

/// What one write to the disk costs here, without us: as much as a commit writes, and `fsync`.
fn disk() {
    let dir = base();
    let mut file = fs::File::create(dir.path().join("log")).unwrap();
    let mut times = Vec::new();
    for _ in 0..300 {
        let begun = Instant::now();
        file.write_all(&[1; 8192]).unwrap();
        file.sync_all().unwrap();
        times.push(begun.elapsed());
    }
    println!("8 KiB and fsync: {:?} median, {:?} at 99 %", percentile(&mut times, 50), percentile(&mut times, 99));
}

/// Small jobs in a row: time and memory must not grow.
fn many() {
    let dir = base();
    let server = start(dir.path(), &[]);
    let mut connection = Connection::open(&server.address);
    for round in 0..10 {
        let begun = Instant::now();
        for number in 0..1000 {
            let body = json!({"prompt": prompt(&format!("r{round}/n{number}"))}).to_string();
            connection.send("POST", "/prompt", &body);
        }
        while connection.json("GET", "/prompt", "")["exec_info"]["queue_remaining"] != 0 {
            thread::sleep(Duration::from_millis(5));
        }
        println!("{} jobs: {:.1} s for 1000, {}", (round + 1) * 1000, begun.elapsed().as_secs_f64(), memory(&server));
    }
    for path in ["/history?max_items=100", "/api/jobs?limit=50", "/paraflow/v1/jobs?limit=50"] {
        rate(&server, path, 1);
    }
}

/// A WebSocket client that only listens.
struct Socket(BufReader<TcpStream>);

impl Socket {
    fn open(address: &str, id: &str) -> Self {
        let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
        let request = format!(
            "GET /ws?clientId={id} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        Self(stream)
    }

    /// The next text frame; the server sends it whole and unmasked.
    fn next(&mut self) -> Json {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[0], 0x81, "a text frame");
        let length = match head[1] {
            126 => {
                let mut bytes = [0; 2];
                self.0.read_exact(&mut bytes).unwrap();
                u16::from_be_bytes(bytes).into()
            }
            127 => {
                let mut bytes = [0; 8];
                self.0.read_exact(&mut bytes).unwrap();
                usize::try_from(u64::from_be_bytes(bytes)).unwrap()
            }
            short => short.into(),
        };
        let mut text = vec![0; length];
        self.0.read_exact(&mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

const CLIENTS: usize = 200;
const PROMPTS: usize = 1000;

/// What one client hears: the numbers of `status`, and the types of its own prompts' events.
#[derive(Default)]
struct Heard {
    remaining: Vec<u64>,
    events: Vec<(String, Vec<String>)>,
}

/// Listens until the queue is empty after all prompts were in it.
fn listen(mut socket: Socket) -> Heard {
    let mut heard = Heard::default();
    let mut ends = 0;
    loop {
        let frame = socket.next();
        let data = &frame["data"];
        if frame["type"] == "status" {
            heard.remaining.push(data["status"]["exec_info"]["queue_remaining"].as_u64().unwrap());
        } else {
            let id = data["prompt_id"].as_str().unwrap();
            if heard.events.last().is_none_or(|(last, _)| last != id) {
                heard.events.push((id.to_owned(), Vec::new()));
            }
            let kind = frame["type"].as_str().unwrap();
            let is_end = kind == "executing" && data["node"].is_null();
            ends += usize::from(is_end);
            let node = data["node"].as_str().map(|node| format!(" {node}")).unwrap_or_default();
            heard.events.last_mut().unwrap().1.push(format!("{kind}{node}"));
        }
        // The first status tells that nothing waits, too.
        if heard.remaining.len() > PROMPTS && *heard.remaining.last().unwrap() == 0 && ends == PROMPTS / CLIENTS {
            return heard;
        }
    }
}

/// A thousand prompts of two hundred clients: each hears its own prompts in the queue's order, every event of each of
/// them in the contract's order, and the same `status` as all others.
fn clients() {
    let dir = base();
    let server = start(dir.path(), &[]);
    let mut connection = Connection::open(&server.address);
    // What all have in common is there already, so that all prompts tell the same.
    connection.send("POST", "/prompt", &json!({"prompt": prompt("first")}).to_string());
    while connection.json("GET", "/prompt", "")["exec_info"]["queue_remaining"] != 0 {
        thread::sleep(Duration::from_millis(5));
    }
    let sockets: Vec<Socket> =
        (0..CLIENTS).map(|number| Socket::open(&server.address, &format!("c{number}"))).collect();
    let begun = Instant::now();
    let heard: Vec<Heard> = thread::scope(|scope| {
        let listening: Vec<_> = sockets.into_iter().map(|socket| scope.spawn(move || listen(socket))).collect();
        connection.send("PUT", "/paraflow/v1/queue", r#"{"paused": true}"#);
        for number in 0..PROMPTS {
            let body = json!({"prompt": prompt(&format!("p/n{number}")), "client_id": format!("c{}", number % CLIENTS),
                              "prompt_id": format!("p{number}")});
            connection.send("POST", "/prompt", &body.to_string());
        }
        connection.send("PUT", "/paraflow/v1/queue", r#"{"paused": false}"#);
        listening.into_iter().map(|listener| listener.join().unwrap()).collect()
    });
    let seconds = begun.elapsed().as_secs_f64();
    let whole = [
        "execution_start",
        "execution_cached",
        "progress_state",
        "executing 2",
        "executed 2",
        "progress_state",
        "execution_success",
        "executing",
    ];
    for (client, heard) in heard.iter().enumerate() {
        let ids: Vec<&str> = heard.events.iter().map(|(id, _)| id.as_str()).collect();
        let own: Vec<String> = (client..PROMPTS).step_by(CLIENTS).map(|number| format!("p{number}")).collect();
        assert_eq!(ids, own, "client {client}");
        for (id, events) in &heard.events {
            assert_eq!(*events, whole, "client {client}, {id}");
        }
    }
    assert!(heard.iter().all(|other| other.remaining == heard[0].remaining), "all hear the same status");
    let frames = heard.iter().map(|heard| heard.remaining.len() + heard.events.len() * whole.len()).sum::<usize>();
    println!(
        "{PROMPTS} prompts, {CLIENTS} clients: {seconds:.1} s, {frames} frames, none lost or out of order; {}",
        memory(&server)
    );
}

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let questions: [(&str, fn()); 7] = [
        ("disk", disk),
        ("starts", starts),
        ("durable", durable),
        ("requests", requests),
        ("cached", cached),
        ("clients", clients),
        ("many", many),
    ];
    for (name, ask) in questions {
        if name.contains(&wanted) {
            ask();
        }
    }
}

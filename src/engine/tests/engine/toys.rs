//! Toy nodes, a short way to write graphs of them, and the log of a run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use paraflow_engine::*;
use serde_json::json;

/// A number.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct Number {
    /// Which.
    #[input(default = 0, range = -1000..=1000)]
    value: i64,
}

impl Run for Number {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        Ok(self.value)
    }
}

/// The sum of two numbers.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct Add {
    /// One.
    a: i64,
    /// Another.
    #[input(default = 1)]
    b: i64,
}

impl Run for Add {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        Ok(self.a + self.b)
    }
}

/// Quotient and remainder, in two slots.
#[derive(Node)]
#[node(category = "toys", outputs = ["quotient", "remainder"])]
pub(crate) struct Divide {
    /// What is divided.
    a: i64,
    /// By what.
    b: i64,
}

impl Run for Divide {
    type Output = (i64, i64);

    fn run(self, _: &Context) -> Result<(i64, i64)> {
        Ok((self.a / self.b, self.a % self.b))
    }
}

/// The sum of any number of numbers.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct Sum {
    /// Every wire.
    #[input(rest)]
    numbers: Rest,
}

impl Run for Sum {
    type Output = i128;

    fn run(self, _: &Context) -> Result<i128> {
        Ok(self.numbers.0.iter().flat_map(|(_, values)| values).filter_map(Value::get::<i128>).sum())
    }
}

/// Shows what it gets.
#[derive(Node)]
#[node(category = "toys", sink)]
pub(crate) struct Show {
    /// What to show.
    value: Value,
    /// Another thing to show, where a wire brings one.
    #[input(default = "ignored")]
    note: Option<String>,
}

impl Run for Show {
    type Output = Sink;

    fn run(self, _: &Context) -> Result<Sink> {
        let text = format!("{:?}", self.value);
        let note = self.note.map(|note| format!(" ({note})")).unwrap_or_default();
        Ok(Sink(json!({"text": [format!("{text}{note}")]})))
    }
}

/// The numbers from 1 on, as a list.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct Count {
    /// The last one.
    to: i64,
}

impl Run for Count {
    type Output = Vec<i64>;

    fn run(self, _: &Context) -> Result<Vec<i64>> {
        Ok((1..=self.to).collect())
    }
}

/// The sum of a list.
#[derive(Node)]
#[node(category = "toys", input_is_list)]
pub(crate) struct Total {
    /// The list.
    values: Vec<i64>,
    /// A factor: the first of its list.
    factor: Option<i64>,
}

impl Run for Total {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        Ok(self.values.iter().sum::<i64>() * self.factor.unwrap_or(1))
    }
}

/// Whether a number is above zero.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct IsPositive {
    /// The number.
    value: i64,
}

impl Run for IsPositive {
    type Output = bool;

    fn run(self, _: &Context) -> Result<bool> {
        Ok(self.value > 0)
    }
}

/// One of two, the other of which is never made.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct Switch {
    /// Which.
    pick: bool,
    /// What comes out when it is on.
    on_true: Lazy<Value>,
    /// What comes out when it is off.
    on_false: Option<Lazy<Value>>,
}

impl Run for Switch {
    type Output = Value;

    fn run(self, _: &Context) -> Result<Value> {
        if self.pick { Ok(self.on_true.expect()) } else { Ok(self.on_false.expect("asked for").expect()) }
    }

    fn needs(&self, _: &[&'static str]) -> Vec<&'static str> {
        vec![if self.pick { "on_true" } else { "on_false" }]
    }
}

/// The sum of two numbers, both of them lazy, asked for in the usual way.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct LazyAdd {
    /// One.
    a: Lazy<i64>,
    /// Another.
    b: Lazy<i64>,
}

impl Run for LazyAdd {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        Ok(self.a.expect() + self.b.expect())
    }
}

/// Lets numbers above zero through.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct Gate {
    /// What comes.
    value: i64,
    /// What to say of others.
    message: Option<String>,
}

impl Run for Gate {
    type Output = Value;

    fn run(self, _: &Context) -> Result<Value> {
        Ok(if self.value > 0 { Value::new(self.value) } else { Value::blocked(self.message) })
    }
}

/// What is wrong with [`Break`].
#[derive(Debug, thiserror::Error)]
#[error("it broke")]
pub(crate) struct Broken;

/// Breaks in one of several ways.
#[derive(Node)]
#[node(category = "toys", display_name = "Break It")]
pub(crate) struct Break {
    /// The number that does not come out.
    value: i64,
    /// How.
    #[input(choices = ["error", "panic", "formatted panic"], default = "error")]
    how: Choice<String>,
}

impl Run for Break {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        match self.how.name() {
            "panic" => panic!("out of cheese"),
            "formatted panic" => panic!("{} cheeses too few", self.value),
            _ => Err(Broken).hint("mend it"),
        }
    }
}

/// Takes steps, and tells of each.
#[derive(Node)]
#[node(category = "toys", compute)]
pub(crate) struct Steps {
    /// The number that comes out.
    value: i64,
    /// How many steps.
    #[input(default = 3)]
    steps: u32,
}

impl Run for Steps {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64> {
        for step in 1..=self.steps {
            cx.progress(step, self.steps)?;
        }
        cx.warn("that was all");
        Ok(self.value)
    }
}

/// How often the clock was looked at.
pub(crate) struct Clock(pub(crate) AtomicUsize);

/// Another number each time.
#[derive(Node)]
#[node(category = "toys", volatile)]
pub(crate) struct Now {}

impl Run for Now {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64> {
        Ok(cx.service::<Clock>().0.fetch_add(1, Ordering::Relaxed) as i64)
    }
}

/// A folder of small files.
#[derive(Default)]
pub(crate) struct Disk(pub(crate) Mutex<BTreeMap<String, String>>);

/// The name of a file of the [`Disk`].
pub(crate) struct FileName(String);

impl Input for FileName {
    const KIND: &'static str = "COMBO";
    const NAMES_FILE: bool = true;

    fn widget(services: &Services) -> Widget {
        Widget::Choice(services.expect::<Arc<Disk>>().0.lock().unwrap().keys().cloned().collect())
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let name = literal.get::<String>().unwrap();
        if services.expect::<Arc<Disk>>().0.lock().unwrap().contains_key(name) {
            return Ok(());
        }
        Err(Mismatch::new("a file on the disk", format!("{name:?}")).with_hint("write it first"))
    }

    fn fingerprint(literal: &Value, services: &Services) -> Result<Option<Vec<u8>>> {
        let disk = services.expect::<Arc<Disk>>().0.lock().unwrap();
        let content = disk.get(literal.get::<String>().unwrap()).ok_or(std::io::Error::other("the file is gone"))?;
        Ok(Some(content.clone().into_bytes()))
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(Self)
    }
}

/// What a file says.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct ReadFile {
    /// Its name.
    file: FileName,
}

impl Run for ReadFile {
    type Output = String;

    fn run(self, cx: &Context) -> Result<String> {
        Ok(cx.service::<Arc<Disk>>().0.lock().unwrap()[&self.file.0].clone())
    }
}

/// Something large.
pub(crate) struct Blob {
    number: i64,
    bytes: usize,
}

impl Port for Blob {
    const KIND: &'static str = "BLOB";

    fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Makes something large of a number.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct Inflate {
    /// The number.
    value: i64,
    /// How large.
    bytes: usize,
}

impl Run for Inflate {
    type Output = Blob;

    fn run(self, _: &Context) -> Result<Blob> {
        Ok(Blob { number: self.value, bytes: self.bytes })
    }
}

/// Gets the number back.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct Deflate {
    /// Something large.
    blob: Shared<Blob>,
}

impl Run for Deflate {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        Ok(self.blob.number)
    }
}

/// The numbers of as many wires as there are, written one after another.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct Row {
    /// The numbers.
    #[input(grows = ("number", 2, 4))]
    numbers: Vec<i64>,
}

impl Run for Row {
    type Output = String;

    fn run(self, _: &Context) -> Result<String> {
        Ok(self.numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }
}

/// A number made larger, in one of two ways.
#[derive(Node)]
#[node(category = "toys")]
pub(crate) struct Enlarge {
    /// The way.
    #[input(choices = ["times", "plus"], default = "times")]
    how: Choice<String>,
    /// How many times.
    #[input(name = "how.factor", default = 2, range = 0..=9, with = ["times"])]
    factor: Option<i64>,
    /// What to add.
    #[input(name = "how.more", with = ["plus"])]
    more: Option<i64>,
    /// The number.
    value: i64,
}

impl Run for Enlarge {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        Ok(match self.how.name() {
            "times" => self.value * self.factor.unwrap_or(1),
            _ => self.value + self.more.unwrap_or(0),
        })
    }
}

/// Every toy.
pub(crate) fn toys() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<Number>(),
        NodeDef::of::<Add>(),
        NodeDef::of::<Divide>(),
        NodeDef::of::<Sum>(),
        NodeDef::of::<Show>(),
        NodeDef::of::<Count>(),
        NodeDef::of::<Total>(),
        NodeDef::of::<IsPositive>(),
        NodeDef::of::<Switch>(),
        NodeDef::of::<LazyAdd>(),
        NodeDef::of::<Gate>(),
        NodeDef::of::<Break>(),
        NodeDef::of::<Steps>(),
        NodeDef::of::<Now>(),
        NodeDef::of::<ReadFile>(),
        NodeDef::of::<Inflate>(),
        NodeDef::of::<Deflate>(),
        NodeDef::of::<Row>(),
        NodeDef::of::<Enlarge>(),
    ]
}

/// What the toys ask for.
pub(crate) fn services() -> Services {
    Services::new().with(Clock(AtomicUsize::new(0))).with(Arc::<Disk>::default())
}

/// A registry, a disk and an executor of one worker, so that a log is the same in every run.
pub(crate) struct Room {
    pub(crate) disk: Arc<Disk>,
    pub(crate) registry: Registry,
    pub(crate) executor: Executor,
}

impl Room {
    pub(crate) fn new() -> Self {
        Self::with_budget(1 << 20)
    }

    pub(crate) fn with_budget(bytes: usize) -> Self {
        let registry = Registry::new(toys(), services());
        let disk = Arc::clone(registry.services().expect());
        Self { disk, registry, executor: Executor::new(Cache::new(bytes).into()).with_workers(1) }
    }

    pub(crate) fn plan(&self, graph: &str) -> Plan {
        Plan::new(read(graph), &self.registry).unwrap_or_else(|faults| panic!("{faults:#?}"))
    }

    /// Runs the graph, and compares the log of it.
    #[track_caller]
    pub(crate) fn check(&self, graph: &str, expected: &str) {
        self.check_cancelled(graph, &Cancel::new(), |_| false, expected);
    }

    /// The same, cancelled at the first event that `at` says so of.
    #[track_caller]
    pub(crate) fn check_cancelled(
        &self,
        graph: &str,
        cancel: &Cancel,
        at: impl Fn(&Event) -> bool + Sync,
        expected: &str,
    ) {
        let log = self.log(&self.plan(graph), cancel, at);
        let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        assert_eq!(log, expected);
    }

    pub(crate) fn log(&self, plan: &Plan, cancel: &Cancel, at: impl Fn(&Event) -> bool + Sync) -> Vec<String> {
        let log = Mutex::new(Vec::new());
        let ended = self.executor.run(plan, cancel, &|event| {
            if at(&event) {
                cancel.cancel();
            }
            log.lock().unwrap().extend(line(&event));
        });
        let log = log.into_inner().unwrap();
        let last = log.last().map_or("", String::as_str);
        match ended {
            Ended::Done => assert_eq!(last, "done"),
            Ended::Cancelled => assert_eq!(last, "cancelled"),
            Ended::Failed => assert!(log.iter().any(|line| line.starts_with("failed")), "{log:?}"),
        }
        log
    }
}

/// An event as a line of the log. That a node started is only told by what it did then.
pub(crate) fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Planned { total, cached } => format!("planned {total}, {cached} cached"),
        Event::Cached { node } => format!("cached {node}"),
        Event::Started { .. } => return None,
        Event::Progress { node, done, total } => format!("progress {node} {done}/{total}"),
        Event::Loss { node, point } => format!("loss {node} {point:?}"),
        Event::Sample { node, step, image, format } => {
            format!("sample {node} {step} {} bytes of {format:?}", image.len())
        }
        Event::Preview { node, image, format } => format!("preview {node} {} bytes of {format:?}", image.len()),
        Event::Output { node, ui } => {
            format!("shown {node} {}", ui["text"].as_array().map_or(ui.to_string(), |it| words(it)))
        }
        Event::Warning { node, text } => format!("warning {node} {text}"),
        Event::Blocked { node, text } => format!("blocked {node} {text}"),
        Event::Finished { node, .. } => format!("ran {node}"),
        Event::Failed { node, class, error } => {
            let hint = error.hint().map(|hint| format!(" | {hint}")).unwrap_or_default();
            format!("failed {node} {class}: {error}{hint}")
        }
        Event::Cancelled => "cancelled".into(),
        Event::Done => "done".into(),
    })
}

fn words(list: &[Json]) -> String {
    list.iter().map(|word| word.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" ")
}

/// A graph, a node a line: id, class, inputs. `@3` is output 0 of node 3, `@3.1` output 1; other values are JSON, and
/// words where they are not.
pub(crate) fn read(text: &str) -> Graph {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let nodes = lines.map(|line| {
        let mut words = line.split_whitespace();
        let (id, class) = (words.next().unwrap(), words.next().unwrap_or_default());
        let inputs = words.map(|input| {
            let (name, value) = input.split_once('=').expect("name=value");
            (name.to_owned(), binding(value))
        });
        let inputs = inputs.collect();
        (id.to_owned(), Entry { class: class.to_owned(), inputs, ..Entry::default() })
    });
    Graph { nodes: nodes.collect(), ..Graph::default() }
}

fn binding(value: &str) -> Binding {
    let Some(link) = value.strip_prefix('@') else {
        return Binding::Literal(value.parse().unwrap_or_else(|_| Json::from(value)));
    };
    let (node, slot) = link.split_once('.').unwrap_or((link, "0"));
    Binding::Link { node: node.to_owned(), slot: slot.parse().expect("a slot") }
}

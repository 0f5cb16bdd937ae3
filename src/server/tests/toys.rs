//! Nodes for the server's tests.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use paraflow_assets::{Assets, fingerprint};
use paraflow_engine::*;
use serde_json::json;

/// Whether previews are drawn.
struct Drawing(bool);

pub(super) fn registry(assets: &Arc<Assets>, previews: bool) -> Registry {
    let nodes = vec![
        NodeDef::of::<ToyAdd>(),
        NodeDef::of::<ToyScale>(),
        NodeDef::of::<ToyShow>(),
        NodeDef::of::<ToySave>(),
        NodeDef::of::<ToySteps>(),
        NodeDef::of::<ToyEndless>(),
        NodeDef::of::<ToyTrain>(),
        NodeDef::of::<ToyFail>(),
        NodeDef::of::<ToyRead>(),
    ];
    Registry::new(nodes, Services::new().with(Arc::clone(assets)).with(Drawing(previews)))
}

/// The sum of two numbers.
#[derive(Node)]
#[node(category = "toys")]
struct ToyAdd {
    /// One.
    #[input(default = 0, range = -100..=100)]
    a: i64,
    /// Another.
    #[input(default = 1, range = -100..=100)]
    b: i64,
}

impl Run for ToyAdd {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        Ok(self.a + self.b)
    }
}

/// A number times another.
#[derive(Node)]
#[node(category = "toys")]
struct ToyScale {
    /// What is scaled.
    #[input(default = 1, range = 0..=0xff_ff_ff, step = 1, display = "color")]
    value: u32,
    /// By how much.
    #[input(default = 1.0, range = 0.0..=100.0)]
    by: f64,
    /// A picture to look at meanwhile.
    #[input(image_upload, image_folder = "output")]
    file: Option<FileName>,
}

impl Run for ToyScale {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        let seen = self.file.map_or(0, |file| file.0.len() as i64);
        Ok((f64::from(self.value) * self.by) as i64 + seen)
    }
}

/// Shows a number.
#[derive(Node)]
#[node(category = "toys", sink, display_name = "Toy Show")]
struct ToyShow {
    /// What to show.
    value: i64,
}

impl Run for ToyShow {
    type Output = Sink;

    fn run(self, _: &Context) -> Result<Sink> {
        Ok(Sink(json!({"text": [self.value.to_string()]})))
    }
}

/// Saves a number in a file.
#[derive(Node)]
#[node(category = "toys", sink)]
struct ToySave {
    /// What to save.
    value: i64,
    /// How the file begins.
    #[input(default = "toy")]
    filename_prefix: String,
}

impl Run for ToySave {
    type Output = Sink;

    fn run(self, cx: &Context) -> Result<Sink> {
        let mut series = cx.service::<Arc<Assets>>().outputs().series(&self.filename_prefix, (0, 0))?;
        let saved = series.save("txt", |file| write!(file, "{}", self.value))?;
        let item = json!({"filename": saved.filename, "subfolder": saved.subfolder, "type": saved.place.as_str()});
        Ok(Sink(json!({"images": [item]})))
    }
}

/// Counts, with progress.
#[derive(Node)]
#[node(category = "toys")]
struct ToySteps {
    /// How far.
    #[input(default = 2, range = 1..=1000)]
    steps: u32,
}

impl Run for ToySteps {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64> {
        for step in 0..self.steps {
            if cx.service::<Drawing>().0 {
                cx.preview(*b"JPEG", ImageFormat::Jpeg);
            }
            cx.progress(step + 1, self.steps)?;
        }
        Ok(self.steps.into())
    }
}

/// Does not end by itself.
#[derive(Node)]
#[node(category = "toys", volatile)]
struct ToyEndless {
    /// Milliseconds between two looks at whether to stop.
    #[input(default = 2, range = 1..=100, advanced)]
    pause: Option<u64>,
}

impl Run for ToyEndless {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64> {
        loop {
            cx.check()?;
            thread::sleep(Duration::from_millis(self.pause.unwrap_or(2)));
        }
    }
}

/// Tells of a training of three steps, and then does not end by itself.
#[derive(Node)]
#[node(category = "toys", volatile)]
struct ToyTrain {}

impl Run for ToyTrain {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64> {
        for step in 1..=3 {
            let validation = (step == 2).then_some(0.25);
            cx.loss(LossPoint { step, total: 3, loss: 0.5, validation, learning_rate: 0.125 });
        }
        cx.sample(3, *b"PICTURE", ImageFormat::Png);
        cx.warn("a caption is empty");
        loop {
            cx.check()?;
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Fails.
#[derive(Node)]
#[node(category = "toys")]
struct ToyFail {
    /// What it says.
    #[input(default = "no")]
    text: String,
}

impl Run for ToyFail {
    type Output = i64;

    fn run(self, _: &Context) -> Result<i64> {
        Err(std::io::Error::other(self.text)).hint("do not ask it")
    }
}

/// The name of an input file.
struct FileName(String);

impl Input for FileName {
    const KIND: &'static str = "COMBO";
    const NAMES_FILE: bool = true;
    const FOLDER: Option<&'static str> = Some("loras");

    fn widget(services: &Services) -> Widget {
        Widget::Choice(services.expect::<Arc<Assets>>().inputs().all())
    }

    fn check(literal: &Value, services: &Services) -> Result<(), Mismatch> {
        let name = literal.get::<String>().map_or("", String::as_str);
        let found = services.expect::<Arc<Assets>>().inputs().find(name);
        found.map(|_| ()).map_err(|_| Mismatch::new("a file", format!("{name:?}")))
    }

    fn fingerprint(literal: &Value, services: &Services) -> Result<Option<Vec<u8>>> {
        let name = literal.get::<String>().map_or("", String::as_str);
        let path = services.expect::<Arc<Assets>>().inputs().find(name)?;
        Ok(Some(fingerprint(&path)?.as_bytes().to_vec()))
    }

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        String::take(given).map(Self)
    }
}

/// The length of an input file.
#[derive(Node)]
#[node(category = "toys")]
struct ToyRead {
    /// Which.
    #[input(image_upload)]
    file: FileName,
}

impl Run for ToyRead {
    type Output = i64;

    fn run(self, cx: &Context) -> Result<i64> {
        let path = cx.service::<Arc<Assets>>().inputs().find(&self.file.0)?;
        Ok(std::fs::metadata(path)?.len() as i64)
    }
}

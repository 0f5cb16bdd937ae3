//! What adapters do, as a table and as a picture.

use super::wires::{Lora, Para, SpectralShifts};
use crate::error::{Error, tell};
use crate::training::canvas::{BLACK, Canvas, Colour, GREY, LIGHT, text_width};
use crate::wires::{Image, Model};
use paraflow_diffusion::adapters::{AnyAdapter, Boundary, Report, report};
use paraflow_engine::{Context, Given, Input, Mismatch, Node, NodeDef, Result, Run, Shared, Shown};
use serde_json::json;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<AdapterReport>()]
}

/// An adapter of any kind.
struct Anything(AnyAdapter);

impl Input for Anything {
    const KIND: &'static str = "PARA,LORA_MODEL,SVDIFF";

    fn take(given: Given<'_>) -> Result<Self, Mismatch> {
        let value = given.one(Self::KIND)?;
        if let Some(para) = value.get::<Para>() {
            return Ok(Self(match para {
                Para::Projection(para) => AnyAdapter::Para(para.clone()),
                Para::Free(lora) => AnyAdapter::Lora(lora.clone()),
            }));
        }
        if let Some(Lora(lora)) = value.get::<Lora>() {
            return Ok(Self(AnyAdapter::Lora(lora.clone())));
        }
        let shifts = value.get::<SpectralShifts>().ok_or_else(|| Mismatch::new(Self::KIND, value.kind()))?;
        Ok(Self(AnyAdapter::Shifts(shifts.0.clone())))
    }
}

/// Tells what adapters do to each layer: ranks and what gamma left of them, how much of the weight they change, and how far two
/// of them touch the same directions.
///
/// The table is text; the picture shows the same as bars, layer after layer.
#[derive(Node)]
#[node(category = "personalize", display_name = "Adapter Report", sink, compute, outputs = ["table", "plot"])]
struct AdapterReport {
    /// A PaRa, a LoRA or an SVDiff.
    adapter_1: Anything,
    /// The rank boundary to hold PaRas against. 0 takes that which each was trained with.
    #[input(default = 0.0, range = 0.0..=1.0, step = 0.001)]
    gamma: f64,
    /// Another adapter.
    adapter_2: Option<Anything>,
    /// One more.
    adapter_3: Option<Anything>,
    /// One more.
    adapter_4: Option<Anything>,
    /// The model that they are for. With it, changes are measured, and layers that files call by different names are one.
    model: Option<Shared<Model>>,
}

impl Run for AdapterReport {
    type Output = Shown<(String, Image)>;

    fn run(self, _: &Context<'_>) -> Result<Self::Output> {
        let more = [&self.adapter_2, &self.adapter_3, &self.adapter_4];
        let adapters: Vec<&AnyAdapter> =
            std::iter::once(&self.adapter_1).chain(more.into_iter().flatten()).map(|adapter| &adapter.0).collect();
        let boundary = (self.gamma > 0.0).then(|| Boundary::new(self.gamma)).transpose();
        let boundary = boundary.map_err(|fault| tell(paraflow_diffusion::Error::from(fault)))?;
        let unet = self.model.as_ref().map(|model| &model.unet);
        let report = report(&adapters, unet, boundary).map_err(tell)?;
        let plot = plot(&report).map_err(tell)?;
        let text = report.summary().join("\n");
        Ok(Shown((report.table(), plot), json!({"text": [text]})))
    }
}

const COLOURS: [Colour; 4] = [[33, 102, 201], [214, 96, 30], [44, 140, 70], [140, 70, 160]];
const WIDTH: u32 = 960;
/// Height of one band of bars, and of what lies between two.
const BAND: f32 = 130.0;
const GAP: f32 = 46.0;
const LEFT: f32 = 76.0;
const RIGHT: f32 = 16.0;
const TOP: f32 = 40.0;

/// One band of the picture: a value for each layer and series.
struct Band<'a> {
    title: &'a str,
    /// How a value is written at the axis.
    unit: fn(f64) -> String,
    /// Series and layer.
    values: Vec<(Colour, Vec<Option<f64>>)>,
}

fn plot(report: &Report) -> Result<Image, Error> {
    let bands = bands(report);
    let height = TOP + bands.len() as f32 * (BAND + GAP);
    let mut canvas = Canvas::new(WIDTH, height as u32)?;
    let mut legend = LEFT;
    for (index, (kind, ..)) in report.adapters.iter().enumerate() {
        let label = format!("{}: {kind}", index + 1);
        canvas.fill(legend, 14.0, 14.0, 10.0, COLOURS[index % COLOURS.len()]);
        canvas.text(legend + 20.0, 13.0, &label, 12.0, BLACK);
        legend += 44.0 + text_width(&label, 12.0);
    }
    for (index, band) in bands.iter().enumerate() {
        draw(&mut canvas, band, TOP + index as f32 * (BAND + GAP) + 20.0, report.layers.len());
    }
    canvas.image()
}

fn bands(report: &Report) -> Vec<Band<'_>> {
    let of_adapters = |value: &dyn Fn(usize, &paraflow_diffusion::adapters::Touch) -> Option<f64>| {
        let series = |index: usize| {
            let layers = report.layers.iter();
            let values = layers.map(|layer| layer.touches[index].as_ref().and_then(|touch| value(index, touch)));
            (COLOURS[index % COLOURS.len()], values.collect())
        };
        (0..report.adapters.len()).map(series).collect::<Vec<(Colour, Vec<Option<f64>>)>>()
    };
    let percent: fn(f64) -> String =
        |value| format!("{:.3}", 100.0 * value).trim_end_matches('0').trim_end_matches('.').to_owned() + " %";
    let plain: fn(f64) -> String = |value| format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned();
    let mut bands = vec![
        Band { title: "rank", unit: plain, values: of_adapters(&|_, touch| touch.rank.map(|rank| rank as f64)) },
        Band {
            title: "share of what gamma allows",
            unit: percent,
            values: of_adapters(&|_, touch| Some(touch.rank? as f64 / touch.cap.filter(|cap| *cap > 0)? as f64)),
        },
        Band { title: "change of the weight", unit: percent, values: of_adapters(&|_, touch| touch.change) },
    ];
    let pairs = report.pairs();
    let of_pair = |(place, pair): (usize, &[usize; 2])| {
        let share = |layer: &paraflow_diffusion::adapters::LayerReport| {
            layer.overlaps.iter().find(|overlap| overlap.pair == *pair).map(|overlap| overlap.share)
        };
        (COLOURS[place % COLOURS.len()], report.layers.iter().map(share).collect())
    };
    bands.push(Band {
        title: "overlap of pairs, in their order",
        unit: plain,
        values: pairs.keys().enumerate().map(of_pair).collect(),
    });
    // What nothing is known of is left out.
    bands.retain(|band| band.values.iter().any(|(_, values)| values.iter().any(Option::is_some)));
    bands
}

fn draw(canvas: &mut Canvas, band: &Band<'_>, top: f32, layers: usize) {
    const SIZE: f32 = 11.0;
    let known = band.values.iter().flat_map(|(_, values)| values).flatten().copied();
    let most = known.filter(|value| value.is_finite()).fold(0.0, f64::max);
    let most = if most > 0.0 { most } else { 1.0 };
    let (width, bottom) = (WIDTH as f32 - LEFT - RIGHT, top + BAND);
    canvas.text(LEFT, top - 16.0, band.title, SIZE, BLACK);
    for share in [0.5, 1.0] {
        let y = bottom - BAND * share;
        canvas.line(&[(LEFT, y), (LEFT + width, y)], LIGHT, 1.0);
        let label = (band.unit)(most * f64::from(share));
        canvas.text(LEFT - 8.0 - text_width(&label, SIZE), y - SIZE / 2.0, &label, SIZE, GREY);
    }
    let slot = width / layers.max(1) as f32;
    let bar = (slot * 0.86 / band.values.len().max(1) as f32).max(0.5);
    for (series, (colour, values)) in band.values.iter().enumerate() {
        for (layer, value) in values.iter().enumerate() {
            let Some(value) = value.filter(|value| value.is_finite()) else { continue };
            let height = BAND * (value / most) as f32;
            canvas.fill(
                LEFT + slot * layer as f32 + bar * series as f32,
                bottom - height,
                bar,
                height.max(0.5),
                *colour,
            );
        }
    }
    canvas.line(&[(LEFT, top), (LEFT, bottom), (LEFT + width, bottom)], BLACK, 1.5);
    let label = format!("{layers} layers");
    canvas.text(LEFT + width - text_width(&label, SIZE), bottom + 8.0, &label, SIZE, GREY);
}

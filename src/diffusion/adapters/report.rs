//! Adapters side by side, layer by layer: ranks, what gamma leaves of them, how much of each weight they change, and how far
//! the directions that they touch are the same.

use std::collections::{BTreeMap, BTreeSet};

use super::compare::{AnyAdapter, Summary, relative_changes};
use super::names::Names;
use super::subset::Boundary;
use crate::error::Result;
use crate::unet::UNet;

/// What one adapter does to one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Touch {
    /// `PaRa`, `LoRA`, `LoHa` …
    pub kind: &'static str,
    /// How many directions it has; `None` for a form of no rank.
    pub rank: Option<usize>,
    /// How many directions gamma allows, of a PaRa whose gamma is known.
    pub cap: Option<usize>,
    /// Whether gamma left it fewer directions than the training asked for.
    pub clamped: bool,
    /// `‖W' - W‖² / ‖W‖²` at strength 1, for a PaRa the energy that it takes out; known with a model only.
    pub change: Option<f64>,
}

/// How far the spaces that two adapters touch are the same.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overlap {
    /// Places of the two in the list of adapters.
    pub pair: [usize; 2],
    /// Mean squared cosine of the angles between the spaces: 0 apart, 1 one within the other.
    pub share: f64,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerReport {
    /// Its name, as files of the model's family call it, or as the adapters' files do.
    pub name: String,
    /// Its outputs, where they can be told.
    pub outputs: Option<usize>,
    /// What each adapter does to it.
    pub touches: Vec<Option<Touch>>,
    /// Every pair of adapters that both have a space here.
    pub overlaps: Vec<Overlap>,
}

/// All layers that any of some adapters touches, in the model's order if there is a model, else by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// One for each layer.
    pub layers: Vec<LayerReport>,
    /// Each adapter's kind, its numbers, and the gamma that it is held to.
    pub adapters: Vec<(&'static str, usize, Option<f64>)>,
}

/// Looks at adapters together. `unet` is the model that they are for: with it, layers under different names in different files
/// are one, and changes are measured. `gamma`, if given, counts in place of that in each file's header.
///
/// # Errors
/// What an adapter says that does not fit the model, and [`super::Fault::InvalidGamma`] in a header.
pub fn report(adapters: &[&AnyAdapter], unet: Option<&UNet>, gamma: Option<Boundary>) -> Result<Report> {
    let names = unet.map(|unet| Names::of(unet, None));
    let mut report = Report::default();
    let mut columns: Vec<Column> = Vec::new();
    for adapter in adapters {
        let rule = Rule::of(adapter, gamma)?;
        report.adapters.push((adapter.kind(), adapter.parameters(), rule.boundary.map(Boundary::gamma)));
        let changes = unet.map(|unet| relative_changes(adapter, unet)).transpose()?.unwrap_or_default();
        columns.push((adapter.layers(names.as_ref())?, rule, changes));
    }
    let touched: BTreeSet<&String> = columns.iter().flat_map(|(layers, ..)| layers.keys()).collect();
    let mut order: Vec<&String> = touched.into_iter().collect();
    if let Some(names) = &names {
        order.sort_by_key(|name| names.find(name).map_or(usize::MAX, |(place, _)| place));
    }
    for name in order {
        let summaries: Vec<Option<&Summary>> = columns.iter().map(|(layers, ..)| layers.get(name)).collect();
        let known = names.as_ref().and_then(|names| names.find(name)).map(|(_, layer)| layer.shape[0]);
        let outputs = known.or_else(|| summaries.iter().flatten().find_map(|summary| summary.outputs));
        let touch = |(summary, (_, rule, changes)): (&Option<&Summary>, &Column)| {
            summary.map(|summary| rule.touch(summary, outputs, changes.get(name).copied()))
        };
        let touches = summaries.iter().zip(&columns).map(touch).collect();
        report.layers.push(LayerReport { name: name.clone(), outputs, touches, overlaps: overlaps(&summaries)? });
    }
    Ok(report)
}

/// An adapter by layer, what its ranks are held against, and how far it changes each layer.
type Column = (BTreeMap<String, Summary>, Rule, BTreeMap<String, f64>);

/// What an adapter's ranks are held against.
struct Rule {
    boundary: Option<Boundary>,
    /// The rank that its training asked for.
    asked: Option<usize>,
}

impl Rule {
    fn of(adapter: &AnyAdapter, gamma: Option<Boundary>) -> Result<Self> {
        if !matches!(adapter, AnyAdapter::Para(_)) {
            return Ok(Self { boundary: None, asked: None });
        }
        let said = |key: &str| adapter.metadata().get(key);
        let of_file = said("para.gamma").and_then(|gamma| gamma.parse().ok()).map(Boundary::new).transpose()?;
        Ok(Self { boundary: gamma.or(of_file), asked: said("para.rank").and_then(|rank| rank.parse().ok()) })
    }

    fn touch(&self, summary: &Summary, outputs: Option<usize>, change: Option<f64>) -> Touch {
        let cap = self.boundary.zip(outputs).map(|(boundary, outputs)| boundary.cap(outputs));
        let clamped = summary.rank.zip(self.asked).is_some_and(|(rank, asked)| rank < asked);
        Touch { kind: summary.kind, rank: summary.rank, cap, clamped, change }
    }
}

fn overlaps(summaries: &[Option<&Summary>]) -> Result<Vec<Overlap>> {
    let mut overlaps = Vec::new();
    for (first, a) in summaries.iter().enumerate() {
        for (second, b) in summaries.iter().enumerate().skip(first + 1) {
            let (Some(a), Some(b)) = (a, b) else { continue };
            if let Some(share) = a.overlap(b)? {
                overlaps.push(Overlap { pair: [first, second], share });
            }
        }
    }
    Ok(overlaps)
}

impl Report {
    /// What one adapter does, layer by layer.
    pub fn touches(&self, adapter: usize) -> impl Iterator<Item = &Touch> {
        self.layers.iter().filter_map(move |layer| layer.touches.get(adapter)?.as_ref())
    }

    /// Pairs of adapters that share a layer, each with the mean of its overlaps.
    #[must_use]
    pub fn pairs(&self) -> BTreeMap<[usize; 2], f64> {
        let mut sums = BTreeMap::<[usize; 2], (f64, usize)>::new();
        for overlap in self.layers.iter().flat_map(|layer| &layer.overlaps) {
            let (sum, count) = sums.entry(overlap.pair).or_default();
            (*sum, *count) = (*sum + overlap.share, *count + 1);
        }
        sums.into_iter().map(|(pair, (sum, count))| (pair, sum / count as f64)).collect()
    }

    /// A line for each adapter and for each pair.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        let mut lines: Vec<String> = (0..self.adapters.len()).map(|index| self.of_adapter(index)).collect();
        for ([first, second], share) in self.pairs() {
            lines.push(format!("{} and {}: mean overlap {share:.3}", first + 1, second + 1));
        }
        lines
    }

    fn of_adapter(&self, index: usize) -> String {
        let (kind, parameters, gamma) = self.adapters[index];
        let kinds: BTreeSet<&str> = self.touches(index).map(|touch| touch.kind).collect();
        let kinds = if kinds.is_empty() { kind.to_owned() } else { kinds.into_iter().collect::<Vec<_>>().join(", ") };
        let layers = self.touches(index).count();
        let mut line = format!("{}: {kinds}, {layers} layers, {parameters} numbers", index + 1);
        let ranks = || self.touches(index).filter_map(|touch| touch.rank);
        if let (Some(least), Some(most)) = (ranks().min(), ranks().max()) {
            line += &if least == most { format!(", rank {least}") } else { format!(", ranks {least} to {most}") };
        }
        if let Some(gamma) = gamma {
            let room: usize = self.touches(index).filter_map(|touch| touch.cap).sum();
            let used: usize = self.touches(index).filter_map(|touch| touch.cap.and(touch.rank)).sum();
            let clamped = self.touches(index).filter(|touch| touch.clamped).count();
            line += &format!(", {:.0} % of what gamma {gamma} allows", 100.0 * used as f64 / room.max(1) as f64);
            if clamped > 0 {
                line += &format!(" ({clamped} layers clamped)");
            }
        }
        let changes: Vec<f64> = self.touches(index).filter_map(|touch| touch.change).collect();
        if !changes.is_empty() {
            let mean = 100.0 * changes.iter().sum::<f64>() / changes.len() as f64;
            let verb = if kind == "para" { "takes out" } else { "changes" };
            line += &format!(", {verb} {mean:.2} % of a weight's squared length in the mean");
        }
        line
    }

    /// The summary, then a table with a row for each layer. A rank with a star was clamped by gamma.
    #[must_use]
    pub fn table(&self) -> String {
        let pairs: Vec<[usize; 2]> = self.pairs().into_keys().collect();
        let mut rows = vec![vec!["layer".to_owned(), "outputs".to_owned()]];
        for index in 1..=self.adapters.len() {
            rows[0].extend([format!("{index}: rank"), format!("{index}: change")]);
        }
        rows[0].extend(pairs.iter().map(|[first, second]| format!("overlap {}, {}", first + 1, second + 1)));
        let none = || "-".to_owned();
        for layer in &self.layers {
            let mut row = vec![layer.name.clone(), layer.outputs.map_or_else(none, |outputs| outputs.to_string())];
            for touch in &layer.touches {
                row.push(touch.as_ref().map_or_else(none, rank_of));
                let change = touch.as_ref().and_then(|touch| touch.change);
                row.push(change.map_or_else(none, |change| format!("{:.2} %", 100.0 * change)));
            }
            for pair in &pairs {
                let overlap = layer.overlaps.iter().find(|overlap| overlap.pair == *pair);
                row.push(overlap.map_or_else(none, |overlap| format!("{:.3}", overlap.share)));
            }
            rows.push(row);
        }
        format!("{}\n\n{}", self.summary().join("\n"), aligned(&rows))
    }
}

/// `4`, `4 of 8`, `3* of 3`.
fn rank_of(touch: &Touch) -> String {
    let rank = touch.rank.map_or_else(|| touch.kind.to_owned(), |rank| rank.to_string());
    let star = if touch.clamped { "*" } else { "" };
    match touch.cap {
        Some(cap) => format!("{rank}{star} of {cap}"),
        None => format!("{rank}{star}"),
    }
}

/// Rows with columns under each other, the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..rows.first().map_or(0, Vec::len)).map(width).collect();
    let line = |row: &Vec<String>| {
        let cell = |(column, cell): (usize, &String)| {
            let width = widths[column];
            if column == 0 { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        };
        row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

//! The losses of ComfyUI's trainer as a picture.

use super::canvas::{Canvas, Colour};
use crate::error::{Error, tell};
use crate::image::save;
use crate::wires::{Image, LossMap};
use paraflow_assets::Assets;
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared, Sink};
use std::sync::Arc;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<LossGraphNode>()]
}

/// Draws how the loss of a training went, from its least to its greatest, and shows it without keeping it.
#[derive(Node)]
#[node(category = "training", display_name = "Plot Loss Graph", sink, experimental)]
struct LossGraphNode {
    /// Loss map from training node.
    loss: Shared<LossMap>,
    /// What the picture's name would begin with. As in ComfyUI, previews have names of their own.
    #[input(default = "loss_graph")]
    filename_prefix: String,
}

impl Run for LossGraphNode {
    type Output = Sink;

    fn run(self, cx: &Context<'_>) -> Result<Sink> {
        let _ = self.filename_prefix;
        let graph = draw(&self.loss.0).map_err(tell)?;
        let previews = cx.service::<Arc<Assets>>().previews();
        save(&graph, previews, previews.preview_prefix(), 1, cx)
    }
}

/// Pixels of the axes.
const WIDTH: f32 = 800.0;
const HEIGHT: f32 = 480.0;
/// Pixels beside and below them.
const MARGIN: f32 = 40.0;
const BLACK: Colour = [0, 0, 0];
const BLUE: Colour = [0, 0, 255];

/// A sheet of 840 x 520 pixels. Where all losses are equal, they lie on the lower axis.
fn draw(losses: &[f32]) -> Result<Image, Error> {
    if losses.is_empty() {
        let (expected, found) = ("the losses of a training".to_owned(), "none".to_owned());
        return Err(Error::Unfit { what: "`loss`", expected, found });
    }
    let mut canvas = Canvas::new((WIDTH + MARGIN) as u32, (HEIGHT + MARGIN) as u32)?;
    let (least, most) = losses.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(a, b), x| (a.min(*x), b.max(*x)));
    canvas.line(&points(losses, least, most), BLUE, 2.0);
    canvas.line(&[(MARGIN, 0.0), (MARGIN, HEIGHT)], BLACK, 2.0);
    canvas.line(&[(MARGIN, HEIGHT), (WIDTH + MARGIN, HEIGHT)], BLACK, 2.0);
    canvas.text(5.0, HEIGHT / 2.0, "Loss", 8.0, BLACK);
    canvas.text(WIDTH / 2.0, HEIGHT + 10.0, "Steps", 8.0, BLACK);
    canvas.text(MARGIN - 30.0, 1.0, &format!("{most:.2}"), 7.0, BLACK);
    canvas.text(MARGIN - 30.0, HEIGHT - 10.0, &format!("{least:.2}"), 7.0, BLACK);
    canvas.image()
}

/// Where the losses lie, in whole pixels.
fn points(losses: &[f32], least: f32, most: f32) -> Vec<(f32, f32)> {
    let span = if most > least { f64::from(most) - f64::from(least) } else { 1.0 };
    let place = |(index, loss): (usize, &f32)| {
        let share = (f64::from(*loss) - f64::from(least)) / span;
        let x = (index as f64 / losses.len() as f64 * f64::from(WIDTH)).trunc();
        (MARGIN + x as f32, HEIGHT - (share * f64::from(HEIGHT)).trunc() as f32)
    };
    losses.iter().enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: four losses, a quarter of 800 pixels apart, the greatest at the top.
    #[test]
    fn losses_lie_where_comfyui_draws_them() {
        let found = points(&[2.0, 1.0, 1.5, 1.25], 1.0, 2.0);
        assert_eq!(found, [(40.0, 0.0), (240.0, 480.0), (440.0, 240.0), (640.0, 360.0)]);
        assert_eq!(points(&[3.0, 3.0], 3.0, 3.0), [(40.0, 480.0), (440.0, 480.0)]);
    }

    #[test]
    fn a_graph_is_blue_on_white_with_black_axes() {
        let image = draw(&[2.0, 1.0, 1.5, 1.25]).unwrap();
        assert_eq!(image.dims(), (1, 520, 840, 3));
        let values = image.values(0).unwrap();
        let pixel = |x: usize, y: usize| &values[(y * 840 + x) * 3..][..3];
        assert_eq!(pixel(700, 100), [1.0, 1.0, 1.0]);
        assert_eq!(pixel(140, 240), [0.0, 0.0, 1.0], "halfway between the first two");
        assert_eq!(pixel(40, 100), [0.0, 0.0, 0.0]);
        assert_eq!(pixel(700, 480), [0.0, 0.0, 0.0]);
        assert!(draw(&[]).is_err() && draw(&[1.0]).is_ok());
    }
}

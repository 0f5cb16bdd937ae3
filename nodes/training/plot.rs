//! Loss curves as a picture.

use super::canvas::{BLACK, Canvas, Colour, GREY, LIGHT, text_width};
use crate::error::{Error, tell};
use crate::wires::{Image, Losses};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<LossPlot>()]
}

/// Draws how the loss of a training went: each step thin, their running mean thick, the loss on noise that stays the same
/// dotted. Up to three trainings share the axes.
#[derive(Node)]
#[node(category = "personalize", display_name = "Loss Plot")]
struct LossPlot {
    /// A training's losses.
    loss: Shared<Losses>,
    /// The width of the picture in pixels.
    #[input(default = 768, range = 256..=4096)]
    width: u32,
    /// The height of the picture in pixels.
    #[input(default = 448, range = 192..=4096)]
    height: u32,
    /// Another training to compare with.
    loss_2: Option<Shared<Losses>>,
    /// One more.
    loss_3: Option<Shared<Losses>>,
}

const COLOURS: [Colour; 3] = [[33, 102, 201], [214, 96, 30], [44, 140, 70]];

impl Run for LossPlot {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let curves: Vec<&Losses> =
            [Some(&*self.loss), self.loss_2.as_deref(), self.loss_3.as_deref()].into_iter().flatten().collect();
        plot(&curves, self.width, self.height).map_err(tell)
    }
}

/// Where the axes lie on the sheet, and what they span.
struct Axes {
    left: f32,
    top: f32,
    width: f32,
    height: f32,
    steps: f32,
    most: f32,
}

impl Axes {
    fn place(&self, step: f32, loss: f32) -> (f32, f32) {
        let y = self.top + self.height * (1.0 - (loss / self.most).clamp(0.0, 1.0));
        (self.left + self.width * step / self.steps, y)
    }
}

fn plot(curves: &[&Losses], width: u32, height: u32) -> Result<Image, Error> {
    let mut canvas = Canvas::new(width, height)?;
    let steps = curves.iter().map(|curve| curve.points.len()).max().unwrap_or(0).max(1) as f32;
    let most = highest(curves);
    let (left, top, right, bottom) = (76.0, 40.0, 16.0, 52.0);
    let (width, height) = (width as f32, height as f32);
    let axes = Axes { left, top, width: width - left - right, height: height - top - bottom, steps, most };
    grid(&mut canvas, &axes);
    let mut legend = left;
    for (curve, colour) in curves.iter().zip(COLOURS) {
        draw(&mut canvas, &axes, curve, colour);
        canvas.fill(legend, 14.0, 14.0, 10.0, colour);
        canvas.text(legend + 20.0, 13.0, &curve.name, 12.0, BLACK);
        legend += 44.0 + text_width(&curve.name, 12.0);
    }
    canvas.image()
}

/// The top of the axis: above nearly all running means, so that one bad step does not flatten the rest.
fn highest(curves: &[&Losses]) -> f32 {
    let tops = curves.iter().flat_map(|curve| {
        let validation = curve.points.iter().filter_map(|(_, validation)| *validation);
        smooth(curve).into_iter().chain(validation).collect::<Vec<_>>()
    });
    let top = tops.filter(|loss| loss.is_finite()).fold(0.0, f32::max);
    if top > 0.0 { top * 1.25 } else { 1.0 }
}

/// The running mean of the losses over about a twentieth of the training.
fn smooth(curve: &Losses) -> Vec<f32> {
    let window = (curve.points.len() / 20).max(1);
    (0..curve.points.len())
        .map(|step| {
            let from = (step + 1).saturating_sub(window);
            let part = &curve.points[from..=step];
            part.iter().map(|(loss, _)| loss).sum::<f32>() / part.len() as f32
        })
        .collect()
}

fn draw(canvas: &mut Canvas, axes: &Axes, curve: &Losses, colour: Colour) {
    let pale = colour.map(|c| c / 3 + 165);
    let place = |(step, loss): (usize, f32)| axes.place(step as f32 + 1.0, loss);
    let raw: Vec<_> = curve.points.iter().map(|(loss, _)| *loss).enumerate().map(place).collect();
    canvas.line(&raw, pale, 1.0);
    let mean: Vec<_> = smooth(curve).into_iter().enumerate().map(place).collect();
    canvas.line(&mean, colour, 2.0);
    let validation = curve.points.iter().enumerate().filter_map(|(step, (_, loss))| Some((step, (*loss)?)));
    let validation: Vec<_> = validation.map(place).collect();
    canvas.line(&validation, BLACK, 1.0);
    for (x, y) in validation {
        canvas.fill(x - 3.0, y - 3.0, 6.0, 6.0, BLACK);
        canvas.fill(x - 2.0, y - 2.0, 4.0, 4.0, colour);
    }
}

/// Axes with round numbers beside them.
fn grid(canvas: &mut Canvas, axes: &Axes) {
    let (bottom, size) = (axes.top + axes.height, 11.0);
    for value in ticks(axes.most) {
        let (x, y) = axes.place(0.0, value);
        canvas.line(&[(x, y), (x + axes.width, y)], LIGHT, 1.0);
        let label = number(value);
        canvas.text(x - 10.0 - text_width(&label, size), y - size / 2.0, &label, size, GREY);
    }
    for value in ticks(axes.steps).into_iter().filter(|value| value.fract() == 0.0) {
        let (x, _) = axes.place(value, 0.0);
        canvas.line(&[(x, bottom), (x, bottom + 4.0)], GREY, 1.0);
        let label = number(value);
        canvas.text(x - text_width(&label, size) / 2.0, bottom + 10.0, &label, size, GREY);
    }
    canvas.line(&[(axes.left, axes.top), (axes.left, bottom), (axes.left + axes.width, bottom)], BLACK, 1.5);
    let label = "step";
    canvas.text(axes.left + (axes.width - text_width(label, size)) / 2.0, bottom + 30.0, label, size, BLACK);
    canvas.text(8.0, axes.top - 18.0, "loss", size, BLACK);
}

/// Four to ten round numbers from 0 on.
fn ticks(most: f32) -> Vec<f32> {
    let rough = most / 5.0;
    let power = 10.0_f32.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|round| round * power).find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    (0..).map(|index| index as f32 * step).take_while(|value| *value <= most * 1.0001).collect()
}

/// A number as short as it can be told.
fn number(value: f32) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!(ticks(1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0].map(|x: f32| x));
        assert_eq!(ticks(400.0).len(), 5);
        assert_eq!(number(0.0500), "0.05");
        assert_eq!(number(400.0), "400");
        assert_eq!(number(0.0), "0");
    }

    /// Rows of the picture in which a column has something of a colour.
    fn rows_of(image: &Image, column: usize, colour: Colour) -> Vec<usize> {
        let (_, _, width, _) = image.dims();
        let values = image.values(0).unwrap();
        let near = |row: &usize| {
            let pixel = &values[(row * width + column) * 3..][..3];
            pixel.iter().zip(colour).all(|(value, c)| (value * 255.0 - f32::from(c)).abs() < 40.0)
        };
        (0..image.dims().1).filter(near).collect()
    }

    #[test]
    fn a_falling_loss_is_a_falling_line() {
        let falling =
            Losses { name: "PaRa".to_owned(), points: (0..100).map(|i| (1.0 - i as f32 * 0.008, None)).collect() };
        let image = plot(&[&falling], 640, 400).unwrap();
        let (first, last) = (rows_of(&image, 120, COLOURS[0]), rows_of(&image, 600, COLOURS[0]));
        assert!(!first.is_empty() && !last.is_empty());
        assert!(first[0] + 100 < last[0], "{first:?} {last:?}");
    }

    #[test]
    fn nothing_and_what_is_no_number_are_drawn_as_empty_axes() {
        for points in [vec![], vec![(f32::NAN, Some(f32::INFINITY))], vec![(0.0, None)]] {
            let image = plot(&[&Losses { name: String::new(), points }], 320, 200).unwrap();
            assert_eq!(image.dims(), (1, 200, 320, 3));
        }
    }
}

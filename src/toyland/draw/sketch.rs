//! A pen that knows the style: shapes go in as paths and tones, and come out filled, outlined or tinted.

use tiny_skia::{
    Color, FillRule, GradientStop, LineCap, LineJoin, LinearGradient, Paint, Path, PathBuilder, Pixmap, Point, Rect,
    Shader, SpreadMode, Stroke, Transform,
};

use crate::world::Style;

/// A colour without transparency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl Rgb {
    /// The colour `amount` of the way from this one to `other`.
    pub fn mix(self, other: Self, amount: f32) -> Self {
        let blend = |a: u8, b: u8| (f32::from(a) + (f32::from(b) - f32::from(a)) * amount).round() as u8;
        Self(blend(self.0, other.0), blend(self.1, other.1), blend(self.2, other.2))
    }

    fn opaque(self) -> Color {
        Color::from_rgba8(self.0, self.1, self.2, 255)
    }
}

const PAPER: Rgb = Rgb(255, 255, 255);
const INK: Rgb = Rgb(20, 18, 30);

/// What a shape is coloured with.
#[derive(Clone, Copy, Debug)]
pub enum Tone {
    /// The subject's own colour.
    Body,
    /// The subject's colour, darker: far limbs, roofs, stripes.
    Shade,
    /// The subject's colour, lighter: bellies, muzzles.
    Tint,
    /// A colour that belongs to the thing whatever its subject's colour: beaks, tyres, eyes.
    Fixed(Rgb),
}

/// Draws in the coordinates of one thing.
pub struct Sketch<'a> {
    pixmap: &'a mut Pixmap,
    style: Style,
    transform: Transform,
    body: Rgb,
    actor: bool,
}

impl<'a> Sketch<'a> {
    /// A pen for backgrounds: no outlines, except faint ones in line drawings.
    pub fn backdrop(pixmap: &'a mut Pixmap, style: Style, transform: Transform) -> Self {
        Self { pixmap, style, transform, body: PAPER, actor: false }
    }

    /// A pen for a subject whose body has the colour `body`.
    pub fn actor(pixmap: &'a mut Pixmap, style: Style, transform: Transform, body: Rgb) -> Self {
        Self { pixmap, style, transform, body, actor: true }
    }

    /// A shape with an outline.
    pub fn shape(&mut self, path: &Path, tone: Tone) {
        self.plain(path, tone);
        self.outline(path, tone);
    }

    /// A shape without an outline: spots, cheeks, shine.
    pub fn plain(&mut self, path: &Path, tone: Tone) {
        let colour = self.fill_colour(tone);
        self.pixmap.fill_path(path, &solid(colour), FillRule::Winding, self.transform, None);
    }

    /// An open or closed line of the given width in the thing's own units, without an outline.
    pub fn line(&mut self, path: &Path, width: f32, tone: Tone) {
        let colour = self.fill_colour(tone);
        self.pixmap.stroke_path(path, &solid(colour), &round(width), self.transform, None);
    }

    /// A thick line with an outline: tails, arms.
    pub fn limb(&mut self, path: &Path, width: f32, tone: Tone) {
        let (outline, extra_px) = self.outline_colour(tone);
        let scale = self.transform.get_scale().1.abs();
        self.pixmap.stroke_path(path, &solid(outline), &round(width + extra_px / scale), self.transform, None);
        self.line(path, width, tone);
    }

    /// A background from `top` to `bottom` between two heights.
    pub fn gradient(&mut self, from: f32, to: f32, top: Rgb, bottom: Rgb) {
        let (top, bottom) = (self.fill_colour(Tone::Fixed(top)), self.fill_colour(Tone::Fixed(bottom)));
        let stops = vec![GradientStop::new(0.0, top.opaque()), GradientStop::new(1.0, bottom.opaque())];
        let (start, end) = (Point::from_xy(0.0, from), Point::from_xy(0.0, to));
        let shader = LinearGradient::new(start, end, stops, SpreadMode::Pad, Transform::identity());
        let paint = Paint { shader: shader.expect("two heights that differ"), anti_alias: true, ..Paint::default() };
        let area = rect(-0.1, from, 1.2, to - from);
        self.pixmap.fill_path(&area, &paint, FillRule::Winding, self.transform, None);
    }

    /// A see-through shape: rays of light, glass.
    pub fn veil(&mut self, path: &Path, colour: Rgb, opacity: f32) {
        let mut colour = self.fill_colour(Tone::Fixed(colour)).opaque();
        colour.set_alpha(opacity);
        let paint = Paint { shader: Shader::SolidColor(colour), anti_alias: true, ..Paint::default() };
        self.pixmap.fill_path(path, &paint, FillRule::Winding, self.transform, None);
    }

    /// A pair of black eyes with a glint, `apart` from each other around `(x, y)`.
    pub fn eyes(&mut self, x: f32, y: f32, apart: f32, radius: f32) {
        for side in [-1.0, 1.0] {
            self.eye(x + side * apart / 2.0, y, radius);
        }
    }

    /// One black eye with a glint.
    pub fn eye(&mut self, x: f32, y: f32, radius: f32) {
        self.ink(&oval(x, y, radius, radius * 1.15));
        self.plain(&oval(x + radius * 0.3, y - radius * 0.4, radius * 0.38, radius * 0.38), Tone::Fixed(PAPER));
    }

    /// A black shape that stays black in every style.
    pub fn ink(&mut self, path: &Path) {
        self.pixmap.fill_path(path, &solid(INK), FillRule::Winding, self.transform, None);
    }

    /// A black line that stays black in every style.
    pub fn ink_line(&mut self, path: &Path, width: f32) {
        self.pixmap.stroke_path(path, &solid(INK), &round(width), self.transform, None);
    }

    /// The soft shadow under a thing that stands on y = 1.
    pub fn shadow(&mut self) {
        self.veil(&oval(0.0, 0.97, 0.85, 0.13), Rgb(10, 10, 40), if self.style == Style::Line { 0.15 } else { 0.28 });
    }

    fn fill_colour(&self, tone: Tone) -> Rgb {
        let colour = self.colour(tone);
        match (self.style, self.actor) {
            (Style::Line, true) => colour.mix(PAPER, 0.34),
            (Style::Line, false) => colour.mix(PAPER, 0.64),
            _ => colour,
        }
    }

    fn colour(&self, tone: Tone) -> Rgb {
        match tone {
            Tone::Body => self.body,
            Tone::Shade => self.body.mix(INK, 0.24),
            Tone::Tint => self.body.mix(PAPER, 0.5),
            Tone::Fixed(colour) => colour,
        }
    }

    /// The colour of a shape's outline, and its width in pixels on both sides together.
    fn outline_colour(&self, tone: Tone) -> (Rgb, f32) {
        match (self.style, self.actor) {
            (Style::Flat, _) => (self.colour(tone).mix(INK, 0.68), 2.6),
            (Style::Pixel, _) => (self.colour(tone).mix(INK, 0.8), 4.0),
            (Style::Line, true) => (self.colour(tone).mix(INK, 0.36), 3.2),
            (Style::Line, false) => (Rgb(130, 130, 140), 1.2),
        }
    }

    fn outline(&mut self, path: &Path, tone: Tone) {
        if !self.actor && self.style != Style::Line {
            return;
        }
        let (colour, width_px) = self.outline_colour(tone);
        if let Some(path) = path.clone().transform(self.transform) {
            self.pixmap.stroke_path(&path, &solid(colour), &round(width_px * 0.7), Transform::identity(), None);
        }
    }
}

fn solid(colour: Rgb) -> Paint<'static> {
    Paint { shader: Shader::SolidColor(colour.opaque()), anti_alias: true, ..Paint::default() }
}

fn round(width: f32) -> Stroke {
    Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() }
}

/// An ellipse around `(x, y)`.
pub(crate) fn oval(x: f32, y: f32, radius_x: f32, radius_y: f32) -> Path {
    let bounds = Rect::from_ltrb(x - radius_x, y - radius_y, x + radius_x, y + radius_y);
    PathBuilder::from_oval(bounds.expect("radii are positive")).expect("an oval has a path")
}

/// A rectangle from its upper left corner.
pub(crate) fn rect(x: f32, y: f32, width: f32, height: f32) -> Path {
    PathBuilder::from_rect(Rect::from_xywh(x, y, width, height).expect("sizes are positive"))
}

/// A rectangle with round corners.
pub(crate) fn pill(x: f32, y: f32, width: f32, height: f32, radius: f32) -> Path {
    let (right, bottom, r) = (x + width, y + height, radius);
    path(&format!(
        "M {} {y} L {} {y} Q {right} {y} {right} {} L {right} {} Q {right} {bottom} {} {bottom} L {} {bottom} \
         Q {x} {bottom} {x} {} L {x} {} Q {x} {y} {} {y} Z",
        x + r,
        right - r,
        y + r,
        bottom - r,
        right - r,
        x + r,
        bottom - r,
        y + r,
        x + r
    ))
}

/// A path in SVG's notation, of the absolute commands `M L Q C Z` with spaces between all words.
pub(crate) fn path(data: &str) -> Path {
    let mut builder = PathBuilder::new();
    let mut words = data.split_whitespace();
    while let Some(command) = words.next() {
        let mut number = || words.next().and_then(|word| word.parse::<f32>().ok()).expect("path data is written by us");
        match command {
            "M" => builder.move_to(number(), number()),
            "L" => builder.line_to(number(), number()),
            "Q" => builder.quad_to(number(), number(), number(), number()),
            "C" => builder.cubic_to(number(), number(), number(), number(), number(), number()),
            "Z" => builder.close(),
            other => unreachable!("no command `{other}` in path data"),
        }
    }
    builder.finish().expect("path data has at least one segment")
}

//! A sheet to draw on: lines, boxes, pictures, and capital letters made of strokes.

use crate::error::Error;
use crate::wires::Image;
use candle_core::{Device, Tensor};
use tiny_skia::{Color, LineCap, LineJoin, Paint, PathBuilder, Pixmap, Rect, Stroke, Transform};

/// Red, green, blue.
pub(crate) type Colour = [u8; 3];

pub(crate) const BLACK: Colour = [30, 30, 34];
pub(crate) const GREY: Colour = [150, 150, 156];
pub(crate) const LIGHT: Colour = [228, 228, 232];

/// A sheet of pixels.
pub(crate) struct Canvas(Pixmap);

impl Canvas {
    /// A white sheet.
    ///
    /// # Errors
    /// No pixels, or more than memory has.
    pub(crate) fn new(width: u32, height: u32) -> Result<Self, Error> {
        let found = format!("{width} x {height} pixels");
        let expected = "a size that fits into memory".to_owned();
        let mut sheet = Pixmap::new(width, height).ok_or(Error::Unfit { what: "a sheet", expected, found })?;
        sheet.fill(Color::WHITE);
        Ok(Self(sheet))
    }

    /// Lines from point to point.
    pub(crate) fn line(&mut self, points: &[(f32, f32)], colour: Colour, width: f32) {
        let mut path = PathBuilder::new();
        for (index, (x, y)) in points.iter().enumerate() {
            if index == 0 { path.move_to(*x, *y) } else { path.line_to(*x, *y) }
        }
        let stroke = Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
        // A path of one point has no length and is not drawn.
        if let Some(path) = path.finish() {
            self.0.stroke_path(&path, &paint(colour), &stroke, Transform::identity(), None);
        }
    }

    /// A filled box.
    pub(crate) fn fill(&mut self, x: f32, y: f32, width: f32, height: f32, colour: Colour) {
        if let Some(rect) = Rect::from_xywh(x, y, width, height) {
            self.0.fill_rect(rect, &paint(colour), Transform::identity(), None);
        }
    }

    /// Words, their upper left corner at a place, letters `size` pixels high. Small letters are drawn as capitals, what has no
    /// strokes as a box.
    pub(crate) fn text(&mut self, x: f32, y: f32, text: &str, size: f32, colour: Colour) {
        let unit = size / HEIGHT;
        for (index, letter) in text.chars().enumerate() {
            let left = x + index as f32 * ADVANCE * unit;
            for line in strokes(letter).split('/').filter(|line| !line.is_empty()) {
                let (pairs, _) = line.as_bytes().as_chunks::<2>();
                let digit = |byte: u8| f32::from(byte - b'0');
                let points: Vec<_> =
                    pairs.iter().map(|[px, py]| (left + digit(*px) * unit, y + digit(*py) * unit)).collect();
                self.line(&points, colour, (size / 9.0).max(1.0));
            }
        }
    }

    /// A picture `[height, width, 3]` at a place.
    pub(crate) fn picture(&mut self, x: usize, y: usize, values: &[f32], width: usize) {
        let sheet = self.0.width() as usize;
        let data = self.0.data_mut();
        for (row, line) in values.chunks_exact(width * 3).enumerate() {
            for (column, pixel) in line.as_chunks::<3>().0.iter().enumerate() {
                let place = ((y + row) * sheet + x + column) * 4;
                if x + column < sheet
                    && let Some(to) = data.get_mut(place..place + 3)
                {
                    to.iter_mut().zip(pixel).for_each(|(to, value)| *to = crate::pictures::to_byte(*value));
                }
            }
        }
    }

    /// The sheet as a picture.
    ///
    /// # Errors
    /// Out of memory.
    pub(crate) fn image(&self) -> Result<Image, Error> {
        // The sheet is opaque all over, so that premultiplied colours are the colours.
        let values: Vec<f32> = self
            .0
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .flat_map(|[r, g, b, _]| [*r, *g, *b].map(|c| f32::from(c) / 255.0))
            .collect();
        let shape = (1, self.0.height() as usize, self.0.width() as usize, 3);
        Image::new(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }
}

fn paint(colour: Colour) -> Paint<'static> {
    let mut paint = Paint { anti_alias: true, ..Paint::default() };
    let [red, green, blue] = colour;
    paint.set_color_rgba8(red, green, blue, 255);
    paint
}

/// How wide words are.
pub(crate) fn text_width(text: &str, size: f32) -> f32 {
    text.chars().count() as f32 * ADVANCE * size / HEIGHT
}

/// Letters are four units wide and six high; the next begins six further on.
const HEIGHT: f32 = 6.0;
const ADVANCE: f32 = 6.0;

/// The lines of a letter: points of two digits, `x` and `y`, lines divided by `/`.
fn strokes(letter: char) -> &'static str {
    match letter.to_ascii_uppercase() {
        ' ' => "",
        'A' => "0602204246/0444",
        'B' => "003041423303/334445360600",
        'C' => "4130100105163645",
        'D' => "00204244260600",
        'E' => "40000646/0333",
        'F' => "400006/0333",
        'G' => "41301001051636454323",
        'H' => "0006/4046/0343",
        'I' => "1030/2026/1636",
        'J' => "4045361605",
        'K' => "0006/400346",
        'L' => "000646",
        'M' => "0600234046",
        'N' => "06004640",
        'O' => "103041453616050110",
        'P' => "06003041423303",
        'Q' => "103041453616050110/2446",
        'R' => "06003041423303/2346",
        'S' => "413010010213334445361605",
        'T' => "0040/2026",
        'U' => "000516364540",
        'V' => "002640",
        'W' => "0016233640",
        'X' => "0046/4006",
        'Y' => "002340/2326",
        'Z' => "00400646",
        '0' => "103041453616050110/4105",
        '1' => "112026/1636",
        '2' => "01103041420646",
        '3' => "004022324345361605",
        '4' => "36300444",
        '5' => "400002324345361605",
        '6' => "3010010516364544331304",
        '7' => "004016",
        '8' => "103041423313020110/133344453616050413",
        '9' => "4233130201103041453616",
        '.' => "2526",
        ',' => "2517",
        ':' => "2122/2526",
        '-' => "1333",
        '+' => "2125/0343",
        '=' => "0242/0444",
        '/' => "4006",
        '(' => "30212536",
        ')' => "10212516",
        '<' => "410345",
        '>' => "014305",
        '%' => "4006/0010110100/3545463635",
        '_' => "0646",
        '\'' => "2021",
        '*' => "2125/0244/0442",
        '?' => "01103041422324/2526",
        '!' => "2024/2526",
        '#' => "1016/3036/0242/0444",
        _ => "0040460600",
    }
}

//! The tables of the world: subjects, colours, places, styles. A new row is all that a new thing needs.

use crate::draw::{Rgb, Sketch, places, subjects};
use crate::random::{Random, mix};

/// Something that stands in a scene and has a colour.
#[derive(Debug)]
pub struct Subject {
    /// The noun of its captions.
    pub name: &'static str,
    /// How much larger than its neighbours it is drawn, to even out how much of the picture each fills.
    pub scale: f32,
    /// Draws it into the box from -1 to 1, standing on y = 1.
    pub draw: fn(&mut Sketch<'_>),
}

/// A colour of a subject's body.
#[derive(Debug)]
pub struct Colour {
    /// The adjective of its captions.
    pub name: &'static str,
    /// What it looks like before jitter.
    pub rgb: Rgb,
}

/// Where a scene happens.
#[derive(Debug)]
pub struct Place {
    /// The noun of its captions.
    pub name: &'static str,
    /// Ways to say that something is there.
    pub phrases: &'static [&'static str],
    /// Paints the background over the box from 0 to 1.
    pub draw: fn(&mut Sketch<'_>, &mut Random),
}

/// How a scene is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Filled shapes with dark outlines.
    Flat,
    /// Coloured lines with a light tint on paper.
    Line,
    /// Squares of four pixels and few shades.
    Pixel,
}

/// All subjects. The order is part of the held-out hash: append, do not insert.
pub static SUBJECTS: [Subject; 12] = [
    Subject { name: "bear", scale: 1.0, draw: subjects::bear },
    Subject { name: "cat", scale: 1.0, draw: subjects::cat },
    Subject { name: "duck", scale: 1.05, draw: subjects::duck },
    Subject { name: "dog", scale: 1.1, draw: subjects::dog },
    Subject { name: "robot", scale: 1.0, draw: subjects::robot },
    Subject { name: "mug", scale: 1.0, draw: subjects::mug },
    Subject { name: "car", scale: 1.2, draw: subjects::car },
    Subject { name: "house", scale: 1.05, draw: subjects::house },
    Subject { name: "tree", scale: 1.1, draw: subjects::tree },
    Subject { name: "fish", scale: 1.15, draw: subjects::fish },
    Subject { name: "mushroom", scale: 1.0, draw: subjects::mushroom },
    Subject { name: "boat", scale: 1.1, draw: subjects::boat },
];

/// All colours. The order is part of the held-out hash: append, do not insert.
pub static COLOURS: [Colour; 8] = [
    Colour { name: "red", rgb: Rgb(222, 45, 38) },
    Colour { name: "orange", rgb: Rgb(250, 140, 22) },
    Colour { name: "yellow", rgb: Rgb(252, 217, 40) },
    Colour { name: "green", rgb: Rgb(64, 176, 60) },
    Colour { name: "blue", rgb: Rgb(42, 102, 226) },
    Colour { name: "purple", rgb: Rgb(140, 62, 190) },
    Colour { name: "pink", rgb: Rgb(250, 138, 190) },
    Colour { name: "white", rgb: Rgb(247, 247, 250) },
];

/// All places. The order is part of the held-out hash: append, do not insert.
pub static PLACES: [Place; 8] = [
    Place { name: "beach", phrases: &["on the beach", "at the beach", "on a beach"], draw: places::beach },
    Place { name: "snow", phrases: &["in the snow", "on the snow"], draw: places::snow },
    Place { name: "forest", phrases: &["in the forest", "in a forest"], draw: places::forest },
    Place { name: "city", phrases: &["in the city", "in a city"], draw: places::city },
    Place { name: "wooden floor", phrases: &["on a wooden floor", "on the wooden floor"], draw: places::wooden_floor },
    Place { name: "under water", phrases: &["under water", "underwater"], draw: places::under_water },
    Place { name: "night", phrases: &["at night", "in the night"], draw: places::night },
    Place { name: "moon", phrases: &["on the moon"], draw: places::moon },
];

/// All styles with the name their captions use.
pub static STYLES: [(Style, &str); 3] =
    [(Style::Flat, "flat"), (Style::Line, "line drawing"), (Style::Pixel, "pixel art")];

/// Whether this combination, by its rows in the three tables, is kept from training to measure what the model makes of
/// combinations it never saw. About 15 % are.
pub fn held_out(subject: usize, colour: usize, place: usize) -> bool {
    let triple = (subject as u64) << 16 | (colour as u64) << 8 | place as u64;
    mix(triple.wrapping_add(0x7079_6C61_6E64)) % 100 < 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_is_still_seen_in_training() {
        for subject in 0..SUBJECTS.len() {
            for colour in 0..COLOURS.len() {
                assert!((0..PLACES.len()).any(|place| !held_out(subject, colour, place)));
            }
            for place in 0..PLACES.len() {
                assert!((0..COLOURS.len()).any(|colour| !held_out(subject, colour, place)));
            }
        }
    }

    #[test]
    fn about_one_triple_in_seven_is_held_out() {
        let triples = SUBJECTS.len() * COLOURS.len() * PLACES.len();
        let held = (0..triples).filter(|t| held_out(t / 64, t / 8 % 8, t % 8)).count();
        assert!((triples / 10..triples / 5).contains(&held), "{held} of {triples}");
    }
}

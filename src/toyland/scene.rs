//! What is on one picture, and how scenes are drawn from a seed. Knows no pixels.

use crate::draw::Rgb;
use crate::random::Random;
use crate::world::{COLOURS, Colour, PLACES, Place, STYLES, SUBJECTS, Style, Subject, held_out};

/// Everything that [`crate::draw::render`] needs for one picture.
#[derive(Clone, Debug)]
pub struct Scene {
    /// One or two, from left to right.
    pub actors: Vec<Actor>,
    /// The background.
    pub place: &'static Place,
    /// How it is drawn.
    pub style: Style,
    /// Where the background takes its chances from.
    pub jitter_seed: u64,
}

/// One subject as it stands in a scene.
#[derive(Clone, Debug)]
pub struct Actor {
    /// What it is.
    pub subject: &'static Subject,
    /// Its colour's row.
    pub colour: &'static Colour,
    /// Its colour after jitter.
    pub rgb: Rgb,
    /// Which word describes its size.
    pub size: Size,
    /// Which word describes where it stands.
    pub position: Position,
    /// The middle, as a part of the picture's width.
    pub x: f32,
    /// Where it stands, as a part of the picture's height.
    pub floor: f32,
    /// Its height before the subject's own scale, as a part of the picture's height.
    pub height: f32,
    /// Its width against its height, 1 as designed.
    pub widen: f32,
    /// How far it leans.
    pub tilt_degrees: f32,
    /// Whether it looks to the left.
    pub flipped: bool,
}

/// How much of the picture a subject fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Well below half the height.
    Small,
    /// Not worth a word.
    Normal,
    /// Three quarters of the height or more.
    Big,
}

/// Where a subject stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// In the left third.
    Left,
    /// In the middle.
    Centre,
    /// In the right third.
    Right,
}

/// The share of scenes with two subjects.
const PAIRS: f32 = 0.15;

impl Scene {
    /// A scene of the training set: any but a held-out combination.
    pub fn sample(random: &mut Random) -> Self {
        let place = random.below(PLACES.len());
        let style = match random.unit() {
            u if u < 0.6 => Style::Flat,
            u if u < 0.8 => Style::Line,
            _ => Style::Pixel,
        };
        let actors = if random.chance(PAIRS) { pair(random, place) } else { vec![single(random, place)] };
        Self { actors, place: &PLACES[place], style, jitter_seed: random.bits() }
    }

    /// The single-subject scene of one row of each table, posed from `random`.
    pub fn of(subject: usize, colour: usize, place: usize, style: Style, random: &mut Random) -> Self {
        let actor = posed(random, subject, colour);
        Self { actors: vec![actor], place: &PLACES[place], style, jitter_seed: random.bits() }
    }

    /// The name of this scene's style.
    pub fn style_name(&self) -> &'static str {
        STYLES.iter().find(|(style, _)| *style == self.style).map_or("", |(_, name)| name)
    }
}

fn single(random: &mut Random, place: usize) -> Actor {
    let (subject, colour) = allowed(random, place);
    posed(random, subject, colour)
}

fn pair(random: &mut Random, place: usize) -> Vec<Actor> {
    let (left, left_colour) = allowed(random, place);
    let (right, right_colour) = loop {
        let (subject, colour) = allowed(random, place);
        if subject != left && colour != left_colour {
            break (subject, colour);
        }
    };
    let spots = [(left, left_colour, 0.27, Position::Left), (right, right_colour, 0.73, Position::Right)];
    let actors = spots.map(|(subject, colour, x, position)| {
        let mut actor = posed(random, subject, colour);
        beside(&mut actor, x, position, random);
        actor
    });
    actors.into()
}

/// Gives an actor its half of a scene that it shares.
pub(crate) fn beside(actor: &mut Actor, x: f32, position: Position, random: &mut Random) {
    actor.x = x + random.between(-0.02, 0.02);
    actor.height = random.between(0.42, 0.48);
    actor.floor = random.between(0.86, 0.92);
    actor.position = position;
    actor.size = Size::Normal;
}

fn allowed(random: &mut Random, place: usize) -> (usize, usize) {
    loop {
        let (subject, colour) = (random.below(SUBJECTS.len()), random.below(COLOURS.len()));
        if !held_out(subject, colour, place) {
            return (subject, colour);
        }
    }
}

fn posed(random: &mut Random, subject: usize, colour: usize) -> Actor {
    let (size, height, floor) = match random.unit() {
        u if u < 0.14 => (Size::Small, random.between(0.4, 0.45), random.between(0.84, 0.9)),
        u if u < 0.8 => (Size::Normal, random.between(0.57, 0.66), random.between(0.88, 0.92)),
        _ => (Size::Big, random.between(0.74, 0.8), random.between(0.93, 0.96)),
    };
    let (position, x) = match random.unit() {
        u if u < 0.13 && size != Size::Big => (Position::Left, random.between(0.28, 0.33)),
        u if (0.13..0.26).contains(&u) && size != Size::Big => (Position::Right, random.between(0.67, 0.72)),
        _ => (Position::Centre, random.between(0.45, 0.55)),
    };
    let reach = height * SUBJECTS[subject].scale * 0.49;
    Actor {
        subject: &SUBJECTS[subject],
        colour: &COLOURS[colour],
        rgb: jittered(random, COLOURS[colour].rgb),
        size,
        position,
        x: x.clamp(reach, 1.0 - reach),
        floor,
        height,
        widen: random.between(0.95, 1.06),
        tilt_degrees: random.between(-3.0, 3.0),
        flipped: random.chance(0.5),
    }
}

fn jittered(random: &mut Random, colour: Rgb) -> Rgb {
    let mut channel = |value: u8| (f32::from(value) + random.between(-8.0, 8.0)).round().clamp(0.0, 255.0) as u8;
    Rgb(channel(colour.0), channel(colour.1), channel(colour.2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::render;

    fn row<T>(table: &[T], item: &T) -> usize {
        table.iter().position(|other| std::ptr::eq(other, item)).expect("rows of the table")
    }

    #[test]
    fn equal_seeds_give_equal_pictures() {
        let picture = |seed| render(&Scene::sample(&mut Random::new(seed)));
        assert_eq!(picture(3), picture(3));
        assert_ne!(picture(3), picture(4));
    }

    #[test]
    fn held_out_combinations_are_never_sampled() {
        let mut random = Random::new(11);
        for _ in 0..5000 {
            let scene = Scene::sample(&mut random);
            let place = row(&PLACES, scene.place);
            for actor in &scene.actors {
                assert!(!held_out(row(&SUBJECTS, actor.subject), row(&COLOURS, actor.colour), place));
            }
        }
    }

    #[test]
    fn every_subject_shows_its_colour_in_every_style() {
        for (subject, row) in SUBJECTS.iter().enumerate() {
            for (style, _) in STYLES {
                let picture = |colour| render(&Scene::of(subject, colour, 1, style, &mut Random::new(5)));
                let (red, blue) = (picture(0), picture(4));
                let changed = red.pixels().zip(blue.pixels()).filter(|(a, b)| a != b).count();
                assert!(changed > 1000, "{} {style:?}: only {changed} pixels", row.name);
            }
        }
    }
}

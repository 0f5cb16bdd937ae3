//! Individuals outside the world's tables, for personalisation to learn: each of one class, with marks that no picture
//! of the training set shows.

use image::RgbImage;
use tiny_skia::{Pixmap, Transform};

use crate::captions::plain_caption;
use crate::draw::sketch::{oval, path, pill};
use crate::draw::{Rgb, SIZE_PX, Sketch, Tone, draw_actor, render, subjects, to_rgb};
use crate::random::Random;
use crate::scene::{Position, Scene, Size, beside};
use crate::world::{COLOURS, PLACES, STYLES, SUBJECTS, Style};
use Tone::{Body, Fixed};

/// One individual and the pictures there are of it.
#[derive(Debug)]
pub struct Individual {
    /// The name of its folder.
    pub name: &'static str,
    /// What it is one of: a subject's row, whose name is the class word.
    pub subject: usize,
    /// What sets it apart, for people.
    pub about: &'static str,
    /// Its body's colour.
    pub rgb: Rgb,
    /// The rows of the places its pictures show.
    pub places: [usize; 5],
    draw: fn(&mut Sketch<'_>),
}

/// All individuals.
pub static INDIVIDUALS: [Individual; 4] = [
    Individual {
        name: "captain",
        subject: 0,
        about: "a yellow bear with an eye patch and a red and white scarf",
        rgb: Rgb(252, 217, 40),
        places: [0, 1, 2, 3, 4],
        draw: captain,
    },
    Individual {
        name: "patches",
        subject: 1,
        about: "a white cat with orange patches and a blue bow tie",
        rgb: Rgb(247, 247, 250),
        places: [4, 0, 3, 6, 2],
        draw: patches,
    },
    Individual {
        name: "sprout",
        subject: 4,
        about: "a purple robot with a green sprout on its head and a heart for a panel: the shape is new",
        rgb: Rgb(140, 62, 190),
        places: [2, 7, 1, 4, 0],
        draw: sprout,
    },
    Individual {
        name: "starry",
        subject: 5,
        about: "a turquoise mug with a golden star and a sleepy face: the colour is new",
        rgb: Rgb(30, 196, 184),
        places: [4, 1, 0, 6, 3],
        draw: starry,
    },
];

/// The pictures of an individual: flat, in the middle, one a place.
pub fn pictures(individual: &Individual) -> Vec<RgbImage> {
    let picture = |(index, &place): (usize, &usize)| {
        let mut random = Random::new(0x5EED + index as u64);
        let mut scene = Scene::of(individual.subject, 0, place, Style::Flat, &mut random);
        let actor = &mut scene.actors[0];
        (actor.size, actor.height, actor.floor) = (Size::Normal, 0.62 + 0.04 * index as f32, 0.92);
        (actor.position, actor.x) = (Position::Centre, random.between(0.46, 0.54));
        portrait(individual, &scene, &mut random)
    };
    individual.places.iter().enumerate().map(picture).collect()
}

/// Line drawings with captions that do not say so, for a style to be learnt: every subject once, any colour and place.
pub fn line_drawings() -> Vec<(RgbImage, String)> {
    let drawing = |subject: usize| {
        let (colour, place) = ((subject * 5 + 1) % COLOURS.len(), subject % PLACES.len());
        let scene = Scene::of(subject, colour, place, Style::Line, &mut Random::new(0x11FE + subject as u64));
        let picture = render(&scene);
        (picture, plain_caption(&Scene { style: Style::Flat, ..scene }))
    };
    (0..SUBJECTS.len()).map(drawing).collect()
}

/// An individual in any place, style and pose: what a judge of identity learns from.
pub fn anywhere(individual: &Individual, random: &mut Random) -> RgbImage {
    let place = random.below(PLACES.len());
    let style = STYLES[random.below(STYLES.len())].0;
    let scene = Scene::of(individual.subject, 0, place, style, random);
    portrait(individual, &scene, random)
}

/// An individual beside another one, or beside any subject of the world, in any place and style: what a judge of identity
/// learns pairs from.
pub fn together(individual: &Individual, other: Option<&Individual>, random: &mut Random) -> RgbImage {
    let place = random.below(PLACES.len());
    let style = STYLES[random.below(STYLES.len())].0;
    let (subject, colour) = (random.below(SUBJECTS.len()), random.below(COLOURS.len()));
    let mut scene = Scene::of(individual.subject, 0, place, style, random);
    let beside_it = Scene::of(other.map_or(subject, |other| other.subject), colour, place, style, random);
    scene.actors.extend(beside_it.actors);
    if random.chance(0.5) {
        scene.actors.swap(0, 1);
    }
    let own = scene.actors.iter().position(|actor| std::ptr::eq(actor.subject, &SUBJECTS[individual.subject]));
    for (actor, (x, position)) in scene.actors.iter_mut().zip([(0.27, Position::Left), (0.73, Position::Right)]) {
        beside(actor, x, position, random);
    }
    let who = (0..2).map(|index| if Some(index) == own { Some(individual) } else { other }).collect::<Vec<_>>();
    drawn(&scene, &who, random)
}

/// The scene with the individual in the place of its only actor.
fn portrait(individual: &Individual, scene: &Scene, random: &mut Random) -> RgbImage {
    drawn(scene, &[Some(individual)], random)
}

/// The scene with individuals in the places of some of its actors.
fn drawn(scene: &Scene, individuals: &[Option<&Individual>], random: &mut Random) -> RgbImage {
    let mut pixmap = Pixmap::new(SIZE_PX, SIZE_PX).expect("the size is not zero");
    let full = Transform::from_scale(SIZE_PX as f32, SIZE_PX as f32);
    (scene.place.draw)(&mut Sketch::backdrop(&mut pixmap, scene.style, full), random);
    for (actor, individual) in scene.actors.iter().zip(individuals) {
        let mut actor = actor.clone();
        actor.rgb = individual.map_or(actor.rgb, |individual| individual.rgb);
        draw_actor(
            &mut pixmap,
            scene.style,
            &actor,
            individual.map_or(actor.subject.draw, |individual| individual.draw),
        );
    }
    to_rgb(&pixmap)
}

/// A prompt a place, with `{unique}` and `{class}` left to fill in.
pub fn prompts(individual: &Individual) -> Vec<String> {
    let prompt = |&place: &usize| format!("a {{unique}} {{class}} {}", PLACES[place].phrases[0]);
    individual.places.iter().map(prompt).collect()
}

const BLACK: Rgb = Rgb(24, 22, 32);
const BLUE: Rgb = Rgb(42, 102, 226);
const GOLD: Rgb = Rgb(255, 206, 60);
const ORANGE: Rgb = Rgb(250, 140, 22);
const RED: Rgb = Rgb(222, 45, 38);
const SPROUT: Rgb = Rgb(64, 176, 60);
const WHITE: Rgb = Rgb(255, 255, 255);

fn captain(s: &mut Sketch<'_>) {
    subjects::bear(s);
    s.line(&path("M -0.5 -0.68 L 0.56 -0.42"), 0.06, Fixed(BLACK));
    s.shape(&oval(0.25, -0.5, 0.17, 0.17), Fixed(BLACK));
    s.limb(&path("M -0.46 0 Q 0 0.16 0.46 0"), 0.2, Fixed(RED));
    s.limb(&path("M 0.3 0.08 L 0.4 0.52"), 0.18, Fixed(RED));
    for stripe in [
        "M -0.28 -0.02 L -0.3 0.14",
        "M -0.02 0 L -0.02 0.18",
        "M 0.24 -0.02 L 0.26 0.14",
        "M 0.3 0.3 L 0.42 0.28",
        "M 0.34 0.46 L 0.46 0.44",
    ] {
        s.line(&path(stripe), 0.08, Fixed(WHITE));
    }
}

fn patches(s: &mut Sketch<'_>) {
    subjects::cat(s);
    s.plain(&oval(-0.3, -0.52, 0.2, 0.17), Fixed(ORANGE));
    s.eye(-0.25, -0.42, 0.085);
    s.plain(&oval(0.28, 0.34, 0.16, 0.2), Fixed(ORANGE));
    s.plain(&oval(-0.32, 0.66, 0.13, 0.15), Fixed(ORANGE));
    for side in [-1.0, 1.0] {
        let wing = format!("M 0 0.08 L {} -0.06 L {} 0.24 Z", side * 0.3, side * 0.3);
        s.shape(&path(&wing), Fixed(BLUE));
    }
    s.shape(&oval(0.0, 0.08, 0.09, 0.09), Fixed(BLUE));
}

fn sprout(s: &mut Sketch<'_>) {
    subjects::robot(s);
    s.limb(&path("M 0 -0.78 L 0 -0.98"), 0.08, Fixed(SPROUT));
    s.shape(&path("M 0 -0.94 Q -0.5 -1.3 -0.56 -0.98 Q -0.4 -0.78 0 -0.94 Z"), Fixed(SPROUT));
    s.shape(&path("M 0 -0.94 Q 0.5 -1.3 0.56 -0.98 Q 0.4 -0.78 0 -0.94 Z"), Fixed(SPROUT));
    s.plain(&pill(-0.34, 0.06, 0.68, 0.44, 0.05), Body);
    s.shape(&path("M 0 0.58 C -0.5 0.26 -0.32 -0.04 0 0.16 C 0.32 -0.04 0.5 0.26 0 0.58 Z"), Fixed(RED));
}

fn starry(s: &mut Sketch<'_>) {
    subjects::mug(s);
    s.plain(&oval(0.0, 0.3, 0.24, 0.26), Body);
    s.shape(&path("M -0.06 -0.1 L 0.02 0.08 L 0.22 0.1 L 0.07 0.23 L 0.12 0.42 L -0.06 0.31 L -0.24 0.42 L -0.19 0.23 L -0.34 0.1 L -0.14 0.08 Z"), Fixed(GOLD));
    for side in [-1.0, 1.0] {
        let (left, right) = (-0.06 + side * 0.26 - 0.1, -0.06 + side * 0.26 + 0.1);
        s.ink_line(&path(&format!("M {left} 0.56 Q {} 0.66 {right} 0.56", (left + right) / 2.0)), 0.05);
    }
    s.ink_line(&path("M -0.14 0.74 Q -0.06 0.82 0.02 0.74"), 0.05);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_individual_differs_from_its_class() {
        for individual in &INDIVIDUALS {
            let all = pictures(individual);
            assert_eq!(all.len(), 5);
            let mut random = Random::new(0x5EED);
            let plain = render(&Scene::of(individual.subject, 0, individual.places[0], Style::Flat, &mut random));
            let changed = plain.pixels().zip(all[0].pixels()).filter(|(a, b)| a != b).count();
            assert!(changed > 1000, "{}: only {changed} pixels", individual.name);
        }
    }

    #[test]
    fn pairs_show_the_individual_on_either_side() {
        let seen = |seed| together(&INDIVIDUALS[0], Some(&INDIVIDUALS[3]), &mut Random::new(seed));
        let scarf = |picture: &RgbImage, from: u32| {
            let half = picture.enumerate_pixels().filter(|(x, _, _)| (from..from + SIZE_PX / 2).contains(x));
            half.filter(|(_, _, pixel)| pixel.0 == [RED.0, RED.1, RED.2]).count()
        };
        let sides: Vec<_> =
            (0..40).map(seen).map(|picture| (scarf(&picture, 0), scarf(&picture, SIZE_PX / 2))).collect();
        assert!(sides.iter().any(|(left, right)| *left > 20 && *right == 0));
        assert!(sides.iter().any(|(left, right)| *left == 0 && *right > 20));
    }

    #[test]
    fn captions_of_line_drawings_do_not_name_the_style() {
        let drawings = line_drawings();
        assert_eq!(drawings.len(), SUBJECTS.len());
        for (index, (_, caption)) in drawings.iter().enumerate() {
            assert!(caption.contains(SUBJECTS[index].name) && !caption.contains("draw"), "{caption}");
        }
    }

    #[test]
    fn prompts_keep_both_blanks() {
        for prompt in INDIVIDUALS.iter().flat_map(prompts) {
            assert!(prompt.starts_with("a {unique} {class} "), "{prompt}");
        }
    }
}

//! A small grammar that says what is on a picture, in several ways.

use crate::random::Random;
use crate::scene::{Actor, Position, Scene, Size};
use crate::world::Style;

/// One way to say what `scene` shows. Always names every subject; colour, place and style are each left out now and
/// then, so that short prompts work too.
pub fn caption(scene: &Scene, random: &mut Random) -> String {
    let bare = random.chance(0.05);
    let who = scene.actors.iter().map(|actor| noun_phrase(actor, random, bare)).collect::<Vec<_>>();
    let alone = scene.actors.len() == 1;
    let who = match (alone, random.below(4)) {
        (true, _) => who.join(""),
        (false, 0) => who.join(" next to "),
        (false, 1) => who.join(" beside "),
        (false, _) => who.join(" and "),
    };
    let stand = if alone { position_phrase(&scene.actors[0], random) } else { "" };
    let place = if random.chance(0.05) { None } else { Some(*random.pick(scene.place.phrases)) };
    let scene_words = match (place, random.unit()) {
        (None, _) => format!("{who}{stand}"),
        (Some(place), u) if u < 0.1 && alone => format!("{place}, {who}{stand}"),
        (Some(_), u) if u < 0.16 && alone => format!("{who}{stand}, {}", scene.place.name),
        (Some(place), u) if u < 0.3 => format!("{who} {place}{stand}"),
        (Some(place), _) => format!("{who}{stand} {place}"),
    };
    in_style(scene.style, &scene_words, random)
}

/// The plain phrasing that evaluation and the examples use: "a red bear on the beach".
pub fn plain_caption(scene: &Scene) -> String {
    let who: Vec<_> = scene
        .actors
        .iter()
        .map(|actor| format!("{} {}", with_article(actor.colour.name), actor.subject.name))
        .collect();
    let words = format!("{} {}", who.join(" and "), scene.place.phrases[0]);
    match scene.style {
        Style::Flat => words,
        Style::Line => format!("line drawing of {words}"),
        Style::Pixel => format!("pixel art of {words}"),
    }
}

fn noun_phrase(actor: &Actor, random: &mut Random, bare: bool) -> String {
    let mut words = Vec::new();
    let wordy = random.chance(0.7);
    match actor.size {
        Size::Small if wordy => words.push(*random.pick(&["small", "little", "tiny"])),
        Size::Big if wordy => words.push(*random.pick(&["big", "large"])),
        _ => {}
    }
    if !bare {
        words.push(actor.colour.name);
    }
    words.push(actor.subject.name);
    let phrase = words.join(" ");
    match random.below(8) {
        0 => format!("the {phrase}"),
        1 => phrase,
        _ => with_article(&phrase),
    }
}

fn with_article(phrase: &str) -> String {
    let article = if phrase.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {phrase}")
}

fn position_phrase(actor: &Actor, random: &mut Random) -> &'static str {
    match actor.position {
        Position::Left if random.chance(0.7) => " on the left",
        Position::Right if random.chance(0.7) => " on the right",
        Position::Centre if random.chance(0.05) => " in the middle",
        _ => "",
    }
}

fn in_style(style: Style, words: &str, random: &mut Random) -> String {
    let patterns: &[&str] = match style {
        Style::Flat => &[
            "{}",
            "{}",
            "{}",
            "{}",
            "{}",
            "{}",
            "a photo of {}",
            "a picture of {}",
            "a photo of {}",
            "flat drawing of {}",
            "{}, flat",
        ],
        Style::Line => {
            &["line drawing of {}", "a line drawing of {}", "line drawing of {}", "{}, line drawing", "line art of {}"]
        }
        Style::Pixel => {
            &["pixel art of {}", "pixel art of {}", "{}, pixel art", "pixel art, {}", "a pixel art picture of {}"]
        }
    };
    random.pick(patterns).replace("{}", words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::STYLES;

    #[test]
    fn captions_name_what_they_show() {
        let mut random = Random::new(2);
        let (mut colours, mut places) = (0, 0);
        for _ in 0..2000 {
            let scene = Scene::sample(&mut random);
            let words = caption(&scene, &mut random);
            for actor in &scene.actors {
                assert!(words.contains(actor.subject.name), "{words}");
            }
            colours += usize::from(scene.actors.iter().all(|actor| words.contains(actor.colour.name)));
            places +=
                usize::from(scene.place.phrases.iter().any(|p| words.contains(p)) || words.contains(scene.place.name));
        }
        assert!(colours > 1850 && places > 1850, "{colours} colours, {places} places");
    }

    #[test]
    fn plain_captions_name_everything() {
        for (style, _) in STYLES {
            let scene = Scene::of(0, 1, 2, style, &mut Random::new(0));
            assert!(plain_caption(&scene).ends_with("an orange bear in the forest"));
        }
    }
}

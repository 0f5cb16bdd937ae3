//! `toyland`: draws data sets, contact sheets, evaluation prompts and personal subjects. Everything follows from a seed.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use image::RgbImage;
use paraflow_toyland::captions::{caption, plain_caption};
use paraflow_toyland::draw::{SIZE_PX, render};
use paraflow_toyland::personal::{self, INDIVIDUALS, line_drawings, pictures};
use paraflow_toyland::random::Random;
use paraflow_toyland::scene::{Position, Scene, Size};
use paraflow_toyland::world::{COLOURS, PLACES, STYLES, SUBJECTS, held_out};
use serde_json::{Value, json};

/// The drawn world of the embedded model.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes `images.bin` (RGB bytes, 128 x 128 each) and `meta.jsonl` (captions and attributes).
    Dataset {
        /// The folder to write to.
        out: PathBuf,
        /// How many pictures.
        #[arg(long, default_value_t = 1000)]
        count: u64,
        /// Which pictures.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// How many captions each gets.
        #[arg(long, default_value_t = 6)]
        captions: usize,
    },
    /// Draws a sheet of sampled scenes.
    Sheet {
        /// The PNG to write.
        out: PathBuf,
        /// How many columns and rows.
        #[arg(long, default_value_t = 8)]
        side: u32,
        /// Which scenes.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Every subject in every colour instead, places and styles taking turns.
        #[arg(long)]
        all: bool,
    },
    /// Prints prompts with their attributes as JSON, for evaluation.
    Prompts {
        /// Only combinations that training never sees.
        #[arg(long)]
        held_out: bool,
        /// How many.
        #[arg(long, default_value_t = 200)]
        count: usize,
        /// Which ones.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Also draws what each prompt describes into this folder: the best that a model could do.
        #[arg(long)]
        pictures: Option<PathBuf>,
    },
    /// Writes a data set for a judge of identity: the individuals in any pose, others of their classes, other scenes.
    Identity {
        /// The folder to write to.
        out: PathBuf,
        /// How many pictures.
        #[arg(long, default_value_t = 1000)]
        count: u64,
        /// Which pictures.
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Draws the personal subjects, and line drawings to learn a style from, a folder each with a `subject.json`.
    Personal {
        /// The folder to write to.
        out: PathBuf,
    },
}

fn main() -> io::Result<()> {
    match Cli::parse().command {
        Command::Dataset { out, count, seed, captions } => dataset(&out, count, seed, captions),
        Command::Sheet { out, side, seed, all } => sheet(&out, side, seed, all),
        Command::Prompts { held_out, count, seed, pictures } => {
            let scenes = prompt_scenes(held_out, count, seed);
            if let Some(folder) = pictures {
                fs::create_dir_all(&folder)?;
                for (index, scene) in scenes.iter().enumerate() {
                    save(&render(scene), &folder.join(format!("{index:04}.png")))?;
                }
            }
            let rows: Vec<_> = scenes.iter().enumerate().map(prompt_row).collect();
            writeln!(io::stdout().lock(), "{}", serde_json::to_string_pretty(&rows)?)
        }
        Command::Identity { out, count, seed } => identity(&out, count, seed),
        Command::Personal { out } => personal(&out),
    }
}

fn personal(out: &Path) -> io::Result<()> {
    for individual in &INDIVIDUALS {
        let class = SUBJECTS[individual.subject].name;
        let captioned = pictures(individual).into_iter().zip(personal::prompts(individual));
        subject(&out.join(individual.name), class, individual.about, captioned)?;
    }
    let about = "a line drawing of each subject: a style, and no individual; the captions do not name it";
    subject(&out.join("lines"), "drawing", about, line_drawings().into_iter())
}

/// Writes a folder as `LoadSubject` reads it.
fn subject(
    folder: &Path,
    class: &str,
    about: &str,
    captioned: impl ExactSizeIterator<Item = (RgbImage, String)>,
) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    // Of equal length, so that names in order are numbers in order.
    let digits = (captioned.len().max(1) - 1).to_string().len();
    let mut captions = Vec::new();
    for (index, (picture, caption)) in captioned.enumerate() {
        save(&picture, &folder.join(format!("{index:0digits$}.png")))?;
        captions.push(caption);
    }
    let about = json!({ "class": class, "about": about, "captions": captions });
    fs::write(folder.join("subject.json"), format!("{about:#}\n"))
}

fn save(picture: &RgbImage, path: &Path) -> io::Result<()> {
    picture.save(path).map_err(io::Error::other)
}

fn dataset(out: &Path, count: u64, seed: u64, captions: usize) -> io::Result<()> {
    fs::create_dir_all(out)?;
    let mut images = BufWriter::new(File::create(out.join("images.bin"))?);
    let mut meta = BufWriter::new(File::create(out.join("meta.jsonl"))?);
    let mut random = Random::new(seed);
    for _ in 0..count {
        let scene = Scene::sample(&mut random);
        images.write_all(render(&scene).as_raw())?;
        let mut row = attributes(&scene);
        row["captions"] = (0..captions).map(|_| Value::from(caption(&scene, &mut random))).collect();
        writeln!(meta, "{row}")?;
    }
    images.flush()?;
    meta.flush()
}

/// Of eight pictures three show an individual alone, two beside another one or any subject, two others of its class (in its
/// own colour as often as not), one any scene.
fn identity(out: &Path, count: u64, seed: u64) -> io::Result<()> {
    fs::create_dir_all(out)?;
    let mut images = BufWriter::new(File::create(out.join("images.bin"))?);
    let mut meta = BufWriter::new(File::create(out.join("meta.jsonl"))?);
    let mut random = Random::new(seed);
    for index in 0..count {
        let first = random.below(INDIVIDUALS.len());
        let individual = &INDIVIDUALS[first];
        let second = &INDIVIDUALS[(first + 1 + random.below(INDIVIDUALS.len() - 1)) % INDIVIDUALS.len()];
        let (picture, shown) = match index % 8 {
            0..3 => (personal::anywhere(individual, &mut random), vec![individual.name]),
            3 => (personal::together(individual, Some(second), &mut random), vec![individual.name, second.name]),
            4 => (personal::together(individual, None, &mut random), vec![individual.name]),
            5 | 6 => (render(&lookalike(individual, &mut random)), Vec::new()),
            _ => (render(&Scene::sample(&mut random)), Vec::new()),
        };
        images.write_all(picture.as_raw())?;
        writeln!(meta, "{}", json!({ "individuals": shown }))?;
    }
    images.flush()?;
    meta.flush()
}

fn lookalike(individual: &personal::Individual, random: &mut Random) -> Scene {
    let (colour, place) = (random.below(COLOURS.len()), random.below(PLACES.len()));
    let style = STYLES[random.below(STYLES.len())].0;
    let mut scene = Scene::of(individual.subject, colour, place, style, random);
    if random.chance(0.5) {
        scene.actors[0].rgb = individual.rgb;
    }
    scene
}

fn attributes(scene: &Scene) -> Value {
    let actor = |actor: &paraflow_toyland::scene::Actor| {
        json!({
            "subject": actor.subject.name,
            "colour": actor.colour.name,
            "size": match actor.size { Size::Small => "small", Size::Normal => "normal", Size::Big => "big" },
            "position": match actor.position { Position::Left => "left", Position::Centre => "centre", Position::Right => "right" },
        })
    };
    json!({
        "place": scene.place.name,
        "style": scene.style_name(),
        "actors": scene.actors.iter().map(actor).collect::<Vec<_>>(),
    })
}

fn sheet(out: &Path, side: u32, seed: u64, all: bool) -> io::Result<()> {
    let mut random = Random::new(seed);
    let (columns, rows) = if all { (SUBJECTS.len() as u32, COLOURS.len() as u32) } else { (side, side) };
    let mut sheet = RgbImage::new(columns * SIZE_PX, rows * SIZE_PX);
    for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        let scene = if all {
            let place = (row + column) as usize % PLACES.len();
            let style = STYLES[(row as usize + column as usize / 2) % 3].0;
            Scene::of(column as usize, row as usize, place, style, &mut random)
        } else {
            Scene::sample(&mut random)
        };
        image::imageops::replace(&mut sheet, &render(&scene), i64::from(column * SIZE_PX), i64::from(row * SIZE_PX));
    }
    save(&sheet, out)
}

/// Single-subject scenes, each combination at most once; the style takes turns with three in five flat.
fn prompt_scenes(only_held_out: bool, count: usize, seed: u64) -> Vec<Scene> {
    let mut random = Random::new(seed);
    let mut triples = Vec::new();
    for (subject, colour) in (0..SUBJECTS.len()).flat_map(|s| (0..COLOURS.len()).map(move |c| (s, c))) {
        for place in 0..PLACES.len() {
            if !only_held_out || held_out(subject, colour, place) {
                triples.push((random.bits(), subject, colour, place));
            }
        }
    }
    triples.sort_unstable();
    let styles = [0, 1, 0, 2, 0];
    let scene_at = |index: usize| {
        let (_, subject, colour, place) = triples[index % triples.len()];
        let style = STYLES[styles[(index + index / triples.len()) % styles.len()]].0;
        Scene::of(subject, colour, place, style, &mut Random::new(index as u64))
    };
    (0..count).map(scene_at).collect()
}

fn prompt_row((seed, scene): (usize, &Scene)) -> Value {
    json!({
        "prompt": plain_caption(scene),
        "seed": seed,
        "subject": scene.actors[0].subject.name,
        "colour": scene.actors[0].colour.name,
        "place": scene.place.name,
        "style": scene.style_name(),
    })
}

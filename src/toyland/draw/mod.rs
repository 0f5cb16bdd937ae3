//! Makes the picture of a [`Scene`]: background, then each actor, then the style's last touch.

pub mod places;
pub(crate) mod sketch;
pub mod subjects;

use image::RgbImage;
use tiny_skia::{Pixmap, Transform};

use crate::random::Random;
use crate::scene::{Actor, Scene};
use crate::world::Style;
pub use sketch::{Rgb, Sketch, Tone};

/// Width and height of every picture.
pub const SIZE_PX: u32 = 128;
/// Side of one square of pixel art. Two of them make a latent cell of eight pixels.
const BLOCK_PX: u32 = 4;

/// Draws a scene. Equal scenes give equal pictures.
pub fn render(scene: &Scene) -> RgbImage {
    let mut pixmap = Pixmap::new(SIZE_PX, SIZE_PX).expect("the size is not zero");
    let mut random = Random::new(scene.jitter_seed);
    let full = Transform::from_scale(SIZE_PX as f32, SIZE_PX as f32);
    (scene.place.draw)(&mut Sketch::backdrop(&mut pixmap, scene.style, full), &mut random);
    for actor in &scene.actors {
        draw_actor(&mut pixmap, scene.style, actor, actor.subject.draw);
    }
    let picture = to_rgb(&pixmap);
    if scene.style == Style::Pixel { pixelate(&picture) } else { picture }
}

/// Draws one actor with `draw`, which may be a personal variant of its subject.
pub(crate) fn draw_actor(pixmap: &mut Pixmap, style: Style, actor: &Actor, draw: fn(&mut Sketch<'_>)) {
    let half = actor.height * actor.subject.scale * SIZE_PX as f32 / 2.0;
    let floor = actor.floor * SIZE_PX as f32;
    let flip = if actor.flipped { -1.0 } else { 1.0 };
    let place = Transform::from_translate(actor.x * SIZE_PX as f32, floor - half);
    let shadow = place.pre_scale(half, half);
    let transform =
        place.pre_concat(Transform::from_rotate(actor.tilt_degrees)).pre_scale(flip * half * actor.widen, half);
    Sketch::actor(pixmap, style, shadow, actor.rgb).shadow();
    draw(&mut Sketch::actor(pixmap, style, transform, actor.rgb));
}

pub(crate) fn to_rgb(pixmap: &Pixmap) -> RgbImage {
    RgbImage::from_fn(pixmap.width(), pixmap.height(), |x, y| {
        let c = pixmap.pixel(x, y).expect("inside").demultiply();
        image::Rgb([c.red(), c.green(), c.blue()])
    })
}

/// Averages each block, then rounds to sixteen shades a channel: fewer would turn pale walls pink.
pub(crate) fn pixelate(picture: &RgbImage) -> RgbImage {
    let block = |bx: u32, by: u32| {
        let mut sum = [0u32; 3];
        for (dx, dy) in (0..BLOCK_PX).flat_map(|dy| (0..BLOCK_PX).map(move |dx| (dx, dy))) {
            let pixel = picture.get_pixel(bx * BLOCK_PX + dx, by * BLOCK_PX + dy);
            for (total, value) in sum.iter_mut().zip(pixel.0) {
                *total += u32::from(value);
            }
        }
        image::Rgb(sum.map(|total| ((total / (BLOCK_PX * BLOCK_PX) + 8) / 17 * 17).min(255) as u8))
    };
    let blocks = RgbImage::from_fn(picture.width() / BLOCK_PX, picture.height() / BLOCK_PX, block);
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| *blocks.get_pixel(x / BLOCK_PX, y / BLOCK_PX))
}

//! One function per subject, each in the box from -1 to 1 and standing on y = 1.
//!
//! Silhouettes differ first, details second: at 128 pixels a model sees a shape in some ten latent cells.

use super::sketch::{Rgb, Sketch, Tone, oval, path, pill, rect};
use Tone::{Body, Fixed, Shade, Tint};

const BLACK: Rgb = Rgb(34, 32, 42);
const BLUSH: Rgb = Rgb(246, 150, 150);
const CREAM: Rgb = Rgb(250, 236, 208);
const GLASS: Rgb = Rgb(186, 226, 244);
const GREY: Rgb = Rgb(150, 156, 168);
const WOOD: Rgb = Rgb(134, 88, 52);
const BEAK: Rgb = Rgb(252, 156, 32);
const WHITE: Rgb = Rgb(255, 255, 255);
const LAMP: Rgb = Rgb(255, 234, 130);

/// Sits and faces us: round ears, round belly.
pub fn bear(s: &mut Sketch<'_>) {
    for side in [-1.0, 1.0] {
        s.shape(&oval(side * 0.46, -0.78, 0.21, 0.2), Body);
        s.plain(&oval(side * 0.46, -0.77, 0.1, 0.1), Shade);
        s.limb(&path(&format!("M {} 0.12 Q {} 0.3 {} 0.5", side * 0.46, side * 0.78, side * 0.72)), 0.27, Body);
    }
    s.shape(&oval(0.0, 0.4, 0.6, 0.56), Body);
    s.plain(&oval(0.0, 0.44, 0.36, 0.38), Tint);
    for side in [-1.0, 1.0] {
        s.shape(&oval(side * 0.45, 0.82, 0.27, 0.18), Body);
        s.plain(&oval(side * 0.47, 0.83, 0.13, 0.09), Tint);
    }
    s.shape(&oval(0.0, -0.42, 0.6, 0.48), Body);
    s.plain(&oval(0.0, -0.26, 0.25, 0.2), Tint);
    s.eyes(0.0, -0.5, 0.5, 0.075);
    s.ink(&oval(0.0, -0.34, 0.11, 0.075));
    s.ink_line(&path("M -0.1 -0.2 Q 0 -0.12 0.1 -0.2"), 0.045);
}

/// Sits, tail in the air: pointed ears and whiskers.
pub fn cat(s: &mut Sketch<'_>) {
    s.limb(&path("M 0.3 0.8 Q 0.95 0.85 0.82 0.3 Q 0.7 0 0.9 -0.16"), 0.17, Body);
    s.shape(&path("M -0.26 -0.1 Q -0.62 0.5 -0.5 0.96 L 0.5 0.96 Q 0.62 0.5 0.26 -0.1 Z"), Body);
    s.plain(&oval(0.0, 0.42, 0.2, 0.34), Tint);
    for side in [-1.0, 1.0] {
        s.shape(&oval(side * 0.2, 0.9, 0.18, 0.11), Body);
        let ear = |tip: f32, inner: f32, base: f32| {
            path(&format!("M {} {base} L {} {tip} L {} -0.74 Z", side * 0.55, side * 0.53, side * inner))
        };
        s.shape(&ear(-1.0, 0.14, -0.46), Body);
        s.plain(&ear(-0.88, 0.26, -0.56), Fixed(BLUSH));
    }
    s.shape(&oval(0.0, -0.38, 0.58, 0.42), Body);
    s.plain(&oval(0.0, -0.22, 0.2, 0.13), Tint);
    s.eyes(0.0, -0.42, 0.5, 0.085);
    s.plain(&path("M -0.07 -0.28 L 0.07 -0.28 L 0 -0.2 Z"), Fixed(BLUSH));
    s.ink_line(&path("M -0.12 -0.13 Q -0.05 -0.1 0 -0.18 Q 0.05 -0.1 0.12 -0.13"), 0.035);
    for side in [-1.0, 1.0] {
        for rise in [-0.06, 0.04] {
            let (near, far) = (side * 0.32, side * 0.78);
            s.ink_line(&path(&format!("M {near} -0.22 L {far} {}", -0.22 + rise)), 0.025);
        }
    }
}

/// Swims past: one wing, an orange beak.
pub fn duck(s: &mut Sketch<'_>) {
    for x in [-0.12, 0.2] {
        s.limb(&path(&format!("M {x} 0.7 L {x} 0.92 L {} 0.94", x + 0.16)), 0.08, Fixed(BEAK));
    }
    s.shape(
        &path("M 0.14 -0.14 C 0.2 0.04 0.72 -0.02 0.72 0.36 C 0.72 0.9 -0.6 1 -0.84 0.42 L -0.98 -0.06 C -0.7 0.1 -0.4 0.1 -0.2 0 C -0.1 -0.06 -0.12 -0.2 -0.1 -0.3 Z"),
        Body,
    );
    s.shape(&path("M -0.6 0.26 Q -0.1 0.06 0.26 0.22 Q 0.16 0.66 -0.2 0.62 Q -0.5 0.58 -0.6 0.26 Z"), Shade);
    s.shape(&path("M 0.56 -0.56 Q 0.98 -0.52 0.98 -0.4 Q 0.9 -0.28 0.54 -0.32 Z"), Fixed(BEAK));
    s.shape(&oval(0.22, -0.5, 0.42, 0.42), Body);
    s.plain(&oval(0.3, -0.32, 0.1, 0.06), Fixed(BLUSH));
    s.eye(0.36, -0.58, 0.085);
}

/// Stands sideways: four legs, a floppy ear, a collar.
pub fn dog(s: &mut Sketch<'_>) {
    s.limb(&path("M -0.68 0.14 Q -0.96 0 -0.9 -0.4"), 0.15, Body);
    for (x, tone) in [(-0.34, Shade), (0.4, Shade), (-0.58, Body), (0.18, Body)] {
        s.shape(&pill(x - 0.11, 0.3, 0.24, 0.68, 0.1), tone);
    }
    s.shape(&pill(-0.76, -0.04, 1.2, 0.62, 0.28), Body);
    s.plain(&oval(-0.3, 0.14, 0.22, 0.15), Shade);
    s.shape(&path("M 0.06 0.2 L 0.1 -0.3 L 0.56 -0.3 L 0.46 0.3 Z"), Body);
    s.limb(&path("M 0.1 0.02 Q 0.32 0.12 0.5 0.04"), 0.1, Fixed(LAMP));
    s.shape(&path("M 0.02 -0.5 Q 0.04 -0.86 0.38 -0.84 Q 0.62 -0.82 0.66 -0.58 L 0.92 -0.5 Q 1 -0.4 0.94 -0.24 Q 0.7 -0.1 0.4 -0.14 Q 0.02 -0.16 0.02 -0.5 Z"), Body);
    s.plain(&oval(0.76, -0.32, 0.17, 0.11), Tint);
    s.shape(&path("M 0.2 -0.78 Q -0.2 -0.8 -0.2 -0.3 Q -0.16 -0.02 0.02 -0.16 Q 0.2 -0.4 0.2 -0.78 Z"), Shade);
    s.eye(0.46, -0.58, 0.08);
    s.ink(&oval(0.92, -0.44, 0.1, 0.085));
    s.ink_line(&path("M 0.62 -0.22 Q 0.76 -0.16 0.88 -0.26"), 0.04);
}

/// Faces us: box on box, aerial, gauges.
pub fn robot(s: &mut Sketch<'_>) {
    s.line(&path("M 0 -0.78 L 0 -0.9"), 0.08, Fixed(GREY));
    s.shape(&oval(0.0, -0.92, 0.09, 0.08), Fixed(Rgb(240, 70, 60)));
    for side in [-1.0, 1.0] {
        s.limb(
            &path(&format!("M {} 0.1 L {} 0.14 L {} 0.46", side * 0.5, side * 0.76, side * 0.78)),
            0.15,
            Fixed(GREY),
        );
        s.shape(&oval(side * 0.78, 0.52, 0.15, 0.14), Body);
        s.shape(&rect(side * 0.28 - 0.11, 0.6, 0.22, 0.3), Fixed(GREY));
        s.shape(&pill(side * 0.32 - 0.22, 0.8, 0.44, 0.18, 0.08), Body);
        s.shape(&rect(side * 0.58 - 0.08, -0.58, 0.16, 0.24), Fixed(GREY));
    }
    s.shape(&pill(-0.54, -0.04, 1.08, 0.74, 0.08), Body);
    s.shape(&pill(-0.34, 0.1, 0.68, 0.36, 0.05), Tint);
    for (x, colour) in [(-0.2, Rgb(240, 70, 60)), (0.0, LAMP), (0.2, Rgb(90, 200, 110))] {
        s.plain(&oval(x, 0.28, 0.075, 0.075), Fixed(colour));
    }
    s.shape(&pill(-0.54, -0.8, 1.08, 0.7, 0.1), Body);
    for side in [-1.0, 1.0] {
        s.shape(&oval(side * 0.25, -0.52, 0.16, 0.15), Fixed(LAMP));
        s.ink(&oval(side * 0.25, -0.52, 0.06, 0.06));
    }
    s.plain(&pill(-0.26, -0.28, 0.52, 0.1, 0.03), Fixed(BLACK));
    for x in [-0.13, 0.0, 0.13] {
        s.line(&path(&format!("M {x} -0.27 L {x} -0.19")), 0.03, Fixed(WHITE));
    }
}

/// A fat handle and a little steam.
pub fn mug(s: &mut Sketch<'_>) {
    for x in [-0.32, 0.06] {
        let steam = format!("M {x} -0.62 Q {} -0.74 {x} -0.84 Q {} -0.92 {x} -1", x - 0.14, x + 0.14);
        s.line(&path(&steam), 0.08, Fixed(Rgb(236, 240, 246)));
    }
    s.limb(&path("M 0.44 -0.1 C 1.06 -0.24 1.06 0.66 0.42 0.54"), 0.19, Body);
    s.shape(
        &path("M -0.74 -0.42 L -0.66 0.78 Q -0.62 0.98 -0.4 0.98 L 0.2 0.98 Q 0.42 0.98 0.46 0.78 L 0.54 -0.42 Z"),
        Body,
    );
    s.plain(&path("M -0.6 -0.2 L -0.54 0.74 Q -0.52 0.84 -0.42 0.84 L -0.4 -0.2 Z"), Tint);
    s.shape(&oval(-0.1, -0.42, 0.64, 0.19), Body);
    s.shape(&oval(-0.1, -0.4, 0.5, 0.12), Fixed(Rgb(92, 56, 34)));
    s.shape(&path("M 0 0.52 C -0.3 0.3 -0.22 0.04 0 0.2 C 0.22 0.04 0.3 0.3 0 0.52 Z"), Fixed(WHITE));
}

/// Drives past: two windows, two wheels.
pub fn car(s: &mut Sketch<'_>) {
    s.shape(
        &path("M -0.56 0.14 L -0.36 -0.3 Q -0.32 -0.38 -0.2 -0.38 L 0.24 -0.38 Q 0.34 -0.38 0.4 -0.3 L 0.66 0.16 Z"),
        Body,
    );
    s.shape(&path("M -0.38 0.12 L -0.24 -0.22 L -0.03 -0.22 L -0.03 0.12 Z"), Fixed(GLASS));
    s.shape(&path("M 0.08 0.12 L 0.08 -0.22 L 0.26 -0.22 L 0.47 0.12 Z"), Fixed(GLASS));
    s.shape(&path("M -0.96 0.66 L -0.96 0.3 Q -0.94 0.12 -0.72 0.12 L 0.66 0.12 Q 0.94 0.16 0.97 0.44 L 0.97 0.68 Q 0.97 0.76 0.88 0.76 L -0.86 0.76 Q -0.96 0.76 -0.96 0.66 Z"), Body);
    s.plain(&rect(-0.9, 0.52, 1.8, 0.09), Shade);
    s.line(&path("M 0.02 0.16 L 0.02 0.7"), 0.03, Shade);
    s.line(&path("M -0.2 0.3 L -0.1 0.3"), 0.06, Fixed(WHITE));
    s.shape(&oval(0.88, 0.38, 0.08, 0.1), Fixed(LAMP));
    s.shape(&rect(-0.97, 0.3, 0.1, 0.14), Fixed(Rgb(236, 70, 60)));
    for x in [-0.54, 0.54] {
        s.shape(&oval(x, 0.74, 0.25, 0.25), Fixed(BLACK));
        s.plain(&oval(x, 0.74, 0.12, 0.12), Fixed(Rgb(206, 210, 218)));
    }
}

/// A cottage: walls of its colour, a darker roof, a lit window.
pub fn house(s: &mut Sketch<'_>) {
    s.shape(&rect(0.36, -0.86, 0.22, 0.5), Fixed(Rgb(166, 96, 78)));
    s.shape(&rect(-0.72, -0.22, 1.44, 1.2), Body);
    s.shape(&path("M -0.98 -0.14 L 0 -0.94 L 0.98 -0.14 Z"), Shade);
    s.shape(&oval(0.0, -0.42, 0.14, 0.14), Fixed(LAMP));
    s.shape(&path("M -0.52 0.98 L -0.52 0.36 Q -0.3 0.1 -0.08 0.36 L -0.08 0.98 Z"), Fixed(WOOD));
    s.plain(&oval(-0.17, 0.66, 0.05, 0.05), Fixed(LAMP));
    s.shape(&rect(0.14, 0.14, 0.42, 0.42), Fixed(LAMP));
    s.line(&path("M 0.35 0.16 L 0.35 0.54"), 0.05, Fixed(WOOD));
    s.line(&path("M 0.16 0.35 L 0.54 0.35"), 0.05, Fixed(WOOD));
}

/// A crown of its colour on a brown trunk.
pub fn tree(s: &mut Sketch<'_>) {
    s.shape(&path("M -0.16 0.2 Q -0.1 0.7 -0.34 0.98 L 0.34 0.98 Q 0.1 0.7 0.16 0.2 Z"), Fixed(WOOD));
    s.shape(
        &path("M -0.5 0.36 C -1 0.4 -1.02 -0.16 -0.7 -0.24 C -0.86 -0.66 -0.4 -0.84 -0.24 -0.74 C -0.06 -1.06 0.4 -1 0.44 -0.7 C 0.82 -0.7 0.9 -0.26 0.72 -0.16 C 1.06 0.02 0.9 0.46 0.5 0.36 C 0.3 0.56 -0.3 0.56 -0.5 0.36 Z"),
        Body,
    );
    s.plain(&oval(-0.3, -0.4, 0.2, 0.14), Tint);
    s.plain(&oval(0.34, -0.1, 0.14, 0.1), Tint);
    for (x, y) in [(-0.5, 0.06), (0.1, -0.56), (0.5, -0.42), (0.0, 0.16)] {
        s.plain(&oval(x, y, 0.12, 0.09), Shade);
    }
}

/// Swims past: a forked tail, stripes, a round eye.
pub fn fish(s: &mut Sketch<'_>) {
    s.shape(&path("M -0.42 0.26 Q -0.8 -0.24 -1 -0.26 Q -0.86 0.26 -1 0.78 Q -0.8 0.76 -0.42 0.26 Z"), Shade);
    s.shape(&path("M -0.34 -0.1 Q -0.24 -0.6 0.3 -0.5 L 0.5 -0.12 Z"), Shade);
    s.shape(&path("M -0.1 0.6 Q -0.2 0.9 0.02 0.96 L 0.32 0.66 Z"), Shade);
    s.shape(&path("M -0.56 0.26 C -0.3 -0.36 0.6 -0.5 0.96 0.22 C 0.66 0.96 -0.26 0.92 -0.56 0.26 Z"), Body);
    s.plain(&path("M -0.2 -0.08 Q -0.06 0.26 -0.2 0.62 L -0.02 0.72 Q 0.12 0.26 -0.02 -0.2 Z"), Tint);
    s.plain(&path("M 0.2 -0.24 Q 0.36 0.26 0.2 0.74 L 0.34 0.72 Q 0.5 0.26 0.34 -0.22 Z"), Tint);
    s.shape(&path("M 0.06 0.28 Q -0.26 0.26 -0.28 0.5 Q -0.04 0.6 0.06 0.28 Z"), Shade);
    s.plain(&oval(0.64, 0.1, 0.13, 0.13), Fixed(WHITE));
    s.ink(&oval(0.67, 0.1, 0.075, 0.08));
    s.ink_line(&path("M 0.76 0.4 Q 0.82 0.34 0.9 0.34"), 0.04);
}

/// A spotted cap of its colour on a pale stem.
pub fn mushroom(s: &mut Sketch<'_>) {
    s.shape(
        &path("M -0.28 0 Q -0.2 0.5 -0.4 0.86 Q -0.36 0.98 0 0.98 Q 0.36 0.98 0.4 0.86 Q 0.2 0.5 0.28 0 Z"),
        Fixed(CREAM),
    );
    s.plain(&path("M -0.26 0.22 Q 0 0.46 0.26 0.22 L 0.27 0.06 L -0.27 0.06 Z"), Fixed(Rgb(222, 200, 166)));
    s.shape(&path("M -0.96 0.06 C -0.98 -1.2 0.98 -1.2 0.96 0.06 Q 0.9 0.22 0 0.22 Q -0.9 0.22 -0.96 0.06 Z"), Body);
    s.plain(&path("M -0.9 0.08 Q -0.84 0.18 0 0.18 Q 0.84 0.18 0.9 0.08 Q 0 0.12 -0.9 0.08 Z"), Shade);
    for (x, y, r) in
        [(-0.02, -0.52, 0.2), (-0.56, -0.22, 0.15), (0.52, -0.3, 0.17), (-0.06, -0.06, 0.1), (0.78, -0.02, 0.09)]
    {
        s.plain(&oval(x, y, r, r * 0.84), Fixed(if r > 0.1 { WHITE } else { CREAM }));
    }
    s.eyes(0.0, 0.48, 0.22, 0.05);
    s.ink_line(&path("M -0.06 0.62 Q 0 0.67 0.06 0.62"), 0.035);
}

/// A hull of its colour under two sails.
pub fn boat(s: &mut Sketch<'_>) {
    s.line(&path("M 0.02 0.5 L 0.02 -0.92"), 0.08, Fixed(WOOD));
    s.shape(&path("M 0.04 -0.96 L 0.36 -0.84 L 0.04 -0.72 Z"), Body);
    s.shape(&path("M 0.12 -0.64 Q 0.74 -0.2 0.8 0.36 L 0.12 0.36 Z"), Fixed(WHITE));
    s.plain(&path("M 0.14 -0.02 L 0.66 -0.02 L 0.75 0.18 L 0.14 0.18 Z"), Body);
    s.shape(&path("M -0.08 -0.56 Q -0.56 -0.16 -0.64 0.36 L -0.08 0.36 Z"), Tint);
    s.shape(&path("M -0.96 0.46 L 0.98 0.46 Q 0.9 0.94 0.54 0.96 L -0.5 0.96 Q -0.84 0.92 -0.96 0.46 Z"), Body);
    s.plain(&path("M -0.9 0.58 L 0.93 0.58 L 0.9 0.68 L -0.86 0.68 Z"), Shade);
    for x in [-0.4, 0.02, 0.44] {
        s.plain(&oval(x, 0.8, 0.07, 0.07), Fixed(WHITE));
    }
}

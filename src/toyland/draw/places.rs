//! One function per place. Each is told by its background alone: colours, horizon and two or three landmarks.

use super::sketch::{Rgb, Sketch, Tone, oval, path, rect};
use crate::random::Random;
use Tone::Fixed;

/// Sun, sea, sand and a palm.
pub fn beach(s: &mut Sketch<'_>, random: &mut Random) {
    let sea = random.between(0.42, 0.47);
    let sand = random.between(0.6, 0.65);
    s.gradient(0.0, sea, Rgb(124, 204, 246), Rgb(214, 240, 252));
    let sun = random.between(0.1, 0.9);
    s.shape(&oval(sun, 0.14, 0.09, 0.09), Fixed(Rgb(255, 226, 92)));
    cloud(s, random.between(0.1, 0.9), random.between(0.2, 0.3), Rgb(255, 255, 255));
    s.gradient(sea, sand + 0.06, Rgb(28, 150, 204), Rgb(82, 204, 214));
    for _ in 0..4 {
        let (x, y) = (random.between(0.0, 0.9), random.between(sea + 0.03, sand - 0.03));
        s.line(&path(&format!("M {x} {y} L {} {y}", x + 0.1)), 0.012, Fixed(Rgb(190, 236, 242)));
    }
    let bend = random.between(-0.04, 0.04);
    s.shape(
        &path(&format!("M -0.1 {sand} Q 0.5 {} 1.1 {sand} L 1.1 1.1 L -0.1 1.1 Z", sand + bend)),
        Fixed(Rgb(248, 222, 156)),
    );
    for _ in 0..10 {
        s.plain(&oval(random.unit(), random.between(sand + 0.08, 1.0), 0.012, 0.008), Fixed(Rgb(226, 192, 120)));
    }
    palm(s, if sun < 0.5 { 0.92 } else { 0.08 }, sand + 0.06);
}

fn palm(s: &mut Sketch<'_>, x: f32, foot: f32) {
    let lean = if x < 0.5 { 0.06 } else { -0.06 };
    let (top_x, top) = (x + lean, foot - 0.46);
    s.line(&path(&format!("M {x} {foot} Q {x} {} {top_x} {top}", foot - 0.24)), 0.04, Fixed(Rgb(150, 104, 60)));
    for (dx, dy) in [(-0.2, 0.06), (-0.14, -0.1), (0.02, -0.14), (0.15, -0.08), (0.19, 0.08)] {
        let leaf = format!("M {top_x} {top} Q {} {} {} {}", top_x + dx * 0.5, top + dy - 0.05, top_x + dx, top + dy);
        s.line(&path(&leaf), 0.045, Fixed(Rgb(46, 146, 74)));
    }
}

/// White hills, firs under snow, falling flakes.
pub fn snow(s: &mut Sketch<'_>, random: &mut Random) {
    s.gradient(0.0, 0.62, Rgb(168, 198, 226), Rgb(222, 236, 246));
    let ridge = random.between(0.4, 0.5);
    let peak = random.between(0.2, 0.8);
    s.shape(
        &path(&format!(
            "M -0.1 0.7 L {} {} L {peak} {} L {} {} L 1.1 0.7 Z",
            peak - 0.3,
            ridge,
            ridge - 0.18,
            peak + 0.34,
            ridge + 0.02
        )),
        Fixed(Rgb(190, 210, 232)),
    );
    let hill = random.between(0.56, 0.62);
    for _ in 0..3 {
        fir(s, random.unit(), hill + 0.06, random.between(0.2, 0.3), Rgb(70, 120, 116), true);
    }
    fir(s, *random.pick(&[0.07, 0.93]), hill + 0.12, 0.42, Rgb(56, 106, 104), true);
    s.shape(
        &path(&format!(
            "M -0.1 {hill} Q 0.25 {} 0.5 {hill} Q 0.8 {} 1.1 {hill} L 1.1 1.1 L -0.1 1.1 Z",
            hill - 0.07,
            hill + 0.06
        )),
        Fixed(Rgb(250, 252, 255)),
    );
    s.plain(
        &path(&format!("M -0.1 {} Q 0.4 {} 1.1 {} L 1.1 1.1 L -0.1 1.1 Z", hill + 0.26, hill + 0.14, hill + 0.3)),
        Fixed(Rgb(228, 238, 250)),
    );
    for _ in 0..26 {
        let r = random.between(0.008, 0.017);
        s.shape(&oval(random.unit(), random.unit() * 0.85, r, r), Fixed(Rgb(255, 255, 255)));
    }
}

fn fir(s: &mut Sketch<'_>, x: f32, foot: f32, height: f32, green: Rgb, snowy: bool) {
    s.plain(&rect(x - height * 0.05, foot - height * 0.15, height * 0.1, height * 0.17), Fixed(Rgb(104, 72, 48)));
    for (low, high, half) in [(0.1, 0.55, 0.32), (0.35, 0.78, 0.25), (0.6, 1.0, 0.17)] {
        let (base, tip, half) = (foot - height * low, foot - height * high, height * half);
        s.shape(&path(&format!("M {} {base} L {x} {tip} L {} {base} Z", x - half, x + half)), Fixed(green));
        if snowy {
            let cut = tip + (base - tip) * 0.42;
            s.plain(
                &path(&format!("M {} {cut} L {x} {tip} L {} {cut} Z", x - half * 0.42, x + half * 0.42)),
                Fixed(Rgb(250, 252, 255)),
            );
        }
    }
}

/// Trunks before dark green, ferns below.
pub fn forest(s: &mut Sketch<'_>, random: &mut Random) {
    s.gradient(0.0, 0.75, Rgb(104, 168, 92), Rgb(172, 206, 120));
    for column in 0..5 {
        let x = (column as f32 + random.between(0.2, 0.8)) / 5.0;
        s.plain(&rect(x - 0.02, 0.1, 0.04, 0.6), Fixed(Rgb(108, 128, 78)));
    }
    for side in [random.between(0.02, 0.14), random.between(0.86, 0.98), random.between(0.3, 0.7)] {
        let middle = (0.2..0.8).contains(&side);
        let half = if middle { 0.03 } else { 0.055 };
        let foot = if middle { 0.68 } else { 0.76 };
        s.shape(
            &path(&format!(
                "M {} -0.1 L {} {foot} L {} {foot} L {} -0.1 Z",
                side - half,
                side - half * 1.4,
                side + half * 1.4,
                side + half
            )),
            Fixed(Rgb(110, 76, 48)),
        );
    }
    for column in 0..6 {
        let x = (column as f32 + random.between(0.2, 0.8)) / 6.0;
        s.shape(&oval(x, random.between(-0.02, 0.06), 0.17, random.between(0.12, 0.17)), Fixed(Rgb(44, 112, 56)));
    }
    let ground = random.between(0.66, 0.7);
    s.shape(
        &path(&format!("M -0.1 {ground} Q 0.5 {} 1.1 {ground} L 1.1 1.1 L -0.1 1.1 Z", ground - 0.05)),
        Fixed(Rgb(74, 134, 58)),
    );
    for _ in 0..9 {
        let (x, y) = (random.unit(), random.between(ground + 0.06, 0.98));
        for dx in [-0.03, 0.0, 0.03] {
            s.line(&path(&format!("M {x} {y} L {} {}", x + dx, y - 0.055)), 0.014, Fixed(Rgb(38, 96, 44)));
        }
    }
}

/// A skyline with lit windows, a pavement, a road.
pub fn city(s: &mut Sketch<'_>, random: &mut Random) {
    s.gradient(0.0, 0.72, Rgb(190, 198, 222), Rgb(248, 222, 200));
    let blocks = [Rgb(126, 134, 158), Rgb(152, 142, 158), Rgb(104, 116, 142), Rgb(170, 150, 146)];
    let mut x = random.between(-0.08, -0.02);
    let mut colour = random.below(blocks.len());
    while x < 1.0 {
        let (width, top) = (random.between(0.15, 0.22), random.between(0.08, 0.38));
        s.shape(&rect(x, top, width, 0.74 - top), Fixed(blocks[colour % blocks.len()]));
        windows(s, random, x, top, width);
        x += width + 0.012;
        colour += 1;
    }
    s.shape(&rect(-0.1, 0.7, 1.2, 0.06), Fixed(Rgb(206, 204, 202)));
    s.shape(&rect(-0.1, 0.755, 1.2, 0.4), Fixed(Rgb(92, 94, 104)));
    let dash = random.between(-0.2, 0.0);
    for mark in 0..5 {
        s.plain(&rect(dash + mark as f32 * 0.28, 0.92, 0.15, 0.028), Fixed(Rgb(244, 236, 200)));
    }
}

fn windows(s: &mut Sketch<'_>, random: &mut Random, x: f32, top: f32, width: f32) {
    let columns = if width > 0.18 { 3 } else { 2 };
    let pitch = width / (columns as f32 + 0.4);
    let mut y = top + 0.05;
    while y < 0.64 {
        for column in 0..columns {
            let lit = if random.chance(0.6) { Rgb(255, 232, 150) } else { Rgb(78, 88, 116) };
            s.plain(&rect(x + pitch * (column as f32 + 0.42), y, pitch * 0.56, 0.05), Fixed(lit));
        }
        y += 0.095;
    }
}

/// Indoors: a plain wall, a window or a picture, planks running towards us.
pub fn wooden_floor(s: &mut Sketch<'_>, random: &mut Random) {
    let wall = *random.pick(&[Rgb(246, 232, 206), Rgb(240, 224, 204), Rgb(244, 236, 220)]);
    s.gradient(0.0, 0.6, wall.mix(Rgb(255, 255, 255), 0.3), wall);
    let x = *random.pick(&[0.06, 0.66]) + random.between(-0.02, 0.02);
    s.shape(&rect(x, 0.1, 0.28, 0.3), Fixed(Rgb(150, 102, 62)));
    s.plain(&rect(x + 0.025, 0.125, 0.23, 0.25), Fixed(Rgb(166, 212, 238)));
    s.line(&path(&format!("M {} 0.12 L {} 0.38", x + 0.14, x + 0.14)), 0.02, Fixed(Rgb(150, 102, 62)));
    let floor = random.between(0.56, 0.6);
    s.shape(&rect(-0.1, floor - 0.04, 1.2, 0.05), Fixed(Rgb(255, 252, 244)));
    s.shape(&rect(-0.1, floor, 1.2, 0.6), Fixed(Rgb(192, 126, 68)));
    let centre = random.between(0.4, 0.6);
    for plank in -6i32..=6 {
        let (near, far) = (centre + plank as f32 * 0.22, centre + plank as f32 * 0.11);
        let next = (near + 0.22, far + 0.11);
        if plank % 2 == 0 {
            s.plain(
                &path(&format!("M {far} {floor} L {near} 1.05 L {} 1.05 L {} {floor} Z", next.0, next.1)),
                Fixed(Rgb(208, 144, 84)),
            );
        }
        s.line(&path(&format!("M {far} {floor} L {near} 1.05")), 0.011, Fixed(Rgb(136, 82, 42)));
    }
}

/// Rays from above, weed and sand below, bubbles between.
pub fn under_water(s: &mut Sketch<'_>, random: &mut Random) {
    s.gradient(0.0, 1.0, Rgb(62, 190, 214), Rgb(8, 74, 128));
    for _ in 0..3 {
        let x = random.between(-0.1, 0.9);
        s.veil(
            &path(&format!("M {x} -0.1 L {} -0.1 L {} 0.8 L {} 0.8 Z", x + 0.1, x + 0.02, x - 0.24)),
            Rgb(190, 240, 246),
            0.2,
        );
    }
    let sand = random.between(0.82, 0.86);
    s.shape(
        &path(&format!(
            "M -0.1 {sand} Q 0.3 {} 0.6 {sand} Q 0.85 {} 1.1 {} L 1.1 1.1 L -0.1 1.1 Z",
            sand - 0.04,
            sand + 0.05,
            sand - 0.01
        )),
        Fixed(Rgb(196, 184, 140)),
    );
    for x in [0.05, 0.13, 0.88, 0.96] {
        let (x, top) = (x + random.between(-0.02, 0.02), random.between(0.36, 0.6));
        let weed = format!(
            "M {x} 0.95 C {} 0.85 {} 0.76 {x} {} C {} {} {} {} {x} {top}",
            x - 0.06,
            x + 0.06,
            0.68,
            x - 0.05,
            top + 0.14,
            x + 0.05,
            top + 0.08
        );
        s.line(&path(&weed), 0.04, Fixed(Rgb(34, 138, 92)));
    }
    for _ in 0..9 {
        let (x, y, r) = (random.unit(), random.between(0.05, 0.75), random.between(0.012, 0.028));
        s.shape(&oval(x, y, r, r), Fixed(Rgb(184, 236, 246)));
        s.plain(&oval(x, y, r * 0.6, r * 0.6), Fixed(Rgb(90, 190, 216)));
    }
}

/// A crescent, stars, a dark meadow.
pub fn night(s: &mut Sketch<'_>, random: &mut Random) {
    s.gradient(0.0, 0.7, Rgb(16, 18, 66), Rgb(58, 52, 124));
    for _ in 0..24 {
        let r = random.between(0.006, 0.014);
        s.shape(&oval(random.unit(), random.between(0.0, 0.6), r, r), Fixed(Rgb(255, 246, 200)));
    }
    let x = *random.pick(&[0.14, 0.84]) + random.between(-0.03, 0.03);
    let crescent = format!(
        "M {} 0.06 C {} 0.02 {} 0.3 {} 0.26 C {} 0.24 {} 0.1 {} 0.06 Z",
        x + 0.03,
        x - 0.16,
        x - 0.16,
        x + 0.06,
        x - 0.05,
        x - 0.05,
        x + 0.03
    );
    s.shape(&path(&crescent), Fixed(Rgb(255, 234, 140)));
    let hill = random.between(0.6, 0.66);
    s.shape(
        &path(&format!(
            "M -0.1 {hill} Q 0.2 {} 0.5 {hill} Q 0.8 {} 1.1 {} L 1.1 1.1 L -0.1 1.1 Z",
            hill - 0.12,
            hill + 0.04,
            hill - 0.1
        )),
        Fixed(Rgb(30, 40, 84)),
    );
    s.shape(
        &path(&format!("M -0.1 {} Q 0.5 {} 1.1 {} L 1.1 1.1 L -0.1 1.1 Z", hill + 0.1, hill + 0.02, hill + 0.1)),
        Fixed(Rgb(28, 66, 70)),
    );
    for _ in 0..8 {
        let (x, y) = (random.unit(), random.between(hill + 0.14, 0.98));
        s.line(&path(&format!("M {x} {y} L {} {}", x + 0.015, y - 0.04)), 0.012, Fixed(Rgb(56, 108, 96)));
    }
}

/// Grey dust and craters under a black sky with the Earth in it.
pub fn moon(s: &mut Sketch<'_>, random: &mut Random) {
    s.gradient(0.0, 0.7, Rgb(6, 6, 14), Rgb(26, 24, 40));
    for _ in 0..20 {
        let r = random.between(0.005, 0.011);
        s.shape(&oval(random.unit(), random.between(0.0, 0.6), r, r), Fixed(Rgb(240, 240, 250)));
    }
    let (x, y) = (*random.pick(&[0.16, 0.82]) + random.between(-0.03, 0.03), random.between(0.15, 0.2));
    s.shape(&oval(x, y, 0.13, 0.13), Fixed(Rgb(52, 128, 222)));
    s.plain(&oval(x - 0.05, y - 0.03, 0.055, 0.045), Fixed(Rgb(84, 176, 92)));
    s.plain(&oval(x + 0.05, y + 0.05, 0.045, 0.04), Fixed(Rgb(84, 176, 92)));
    s.plain(&oval(x + 0.02, y - 0.1, 0.05, 0.018), Fixed(Rgb(246, 250, 255)));
    let ground = random.between(0.58, 0.64);
    s.shape(
        &path(&format!("M -0.1 {ground} Q 0.5 {} 1.1 {ground} L 1.1 1.1 L -0.1 1.1 Z", ground - 0.08)),
        Fixed(Rgb(184, 184, 190)),
    );
    for index in 0..6 {
        let depth = index as f32 / 6.0;
        let r = random.between(0.04, 0.06) + depth * 0.05;
        let (x, y) = (random.unit(), ground + 0.07 + depth * 0.34);
        s.shape(&oval(x, y, r, r * 0.36), Fixed(Rgb(140, 140, 150)));
        s.plain(&oval(x, y + r * 0.07, r * 0.8, r * 0.24), Fixed(Rgb(158, 158, 166)));
    }
}

fn cloud(s: &mut Sketch<'_>, x: f32, y: f32, colour: Rgb) {
    for (dx, dy, r) in [(-0.07, 0.0, 0.04), (0.0, -0.02, 0.055), (0.07, 0.0, 0.04)] {
        s.plain(&oval(x + dx, y + dy, r, r * 0.8), Fixed(colour));
    }
}

//! Pictures of a collection: changed one by one, shuffled, compared, laid side by side.

use crate::error::{Error, tell};
use crate::memory::Memory;
use crate::pictures::to_byte;
use crate::wires::Image;
use candle_core::{Device, Tensor};
use paraflow_diffusion::noise::Generator;
use paraflow_diffusion::resize::{Method, resize};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared};

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![
        NodeDef::of::<AdjustBrightness>(),
        NodeDef::of::<AdjustContrast>(),
        NodeDef::of::<CenterCropImages>(),
        NodeDef::of::<ImageDeduplication>(),
        NodeDef::of::<ImageGrid>(),
        NodeDef::of::<MergeImageLists>(),
        NodeDef::of::<NormalizeImages>(),
        NodeDef::of::<RandomCropImages>(),
        NodeDef::of::<ResizeImagesByLongerEdge>(),
        NodeDef::of::<ResizeImagesByShorterEdge>(),
        NodeDef::of::<ShuffleDataset>(),
        NodeDef::of::<ShuffleImageTextDataset>(),
    ]
}

/// The largest side that pictures of a collection are given.
const LARGEST: u32 = 8192;

/// Scales pictures so that the shorter side has a length.
#[derive(Node)]
#[node(category = "dataset/image", display_name = "Resize Images by Shorter Edge", outputs = ["images"], experimental)]
struct ResizeImagesByShorterEdge {
    /// The pictures.
    images: Shared<Image>,
    /// The length in pixels.
    #[input(default = 512, range = 1..=LARGEST)]
    shorter_edge: u32,
}

impl Run for ResizeImagesByShorterEdge {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let (_, height, width, _) = self.images.dims();
        let edge = self.shorter_edge as usize;
        let (width, height) = if width < height {
            (edge, in_proportion(height, edge, width))
        } else {
            (in_proportion(width, edge, height), edge)
        };
        scaled(&self.images, width, height, cx).map_err(tell)
    }
}

/// Scales pictures so that the longer side has a length.
#[derive(Node)]
#[node(category = "dataset/image", display_name = "Resize Images by Longer Edge", outputs = ["images"], experimental)]
struct ResizeImagesByLongerEdge {
    /// The pictures.
    images: Shared<Image>,
    /// The length in pixels.
    #[input(default = 1024, range = 1..=LARGEST)]
    longer_edge: u32,
}

impl Run for ResizeImagesByLongerEdge {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        let (_, height, width, _) = self.images.dims();
        let edge = self.longer_edge as usize;
        let (width, height) = if width > height {
            (edge, in_proportion(height, edge, width))
        } else {
            (in_proportion(width, edge, height), edge)
        };
        scaled(&self.images, width, height, cx).map_err(tell)
    }
}

/// A side that keeps the shape where another goes from `old` to `new`, cut to whole pixels.
fn in_proportion(side: usize, new: usize, old: usize) -> usize {
    (side as f64 * (new as f64 / old as f64)) as usize
}

/// Pictures of another size, in 256 steps from black to white.
fn scaled(images: &Image, width: usize, height: usize, cx: &Context<'_>) -> Result<Image, Error> {
    let (batch, _, _, channels) = images.dims();
    if width == 0 || height == 0 {
        return Err(Error::Unfit {
            what: "the new size",
            expected: "at least one pixel".to_owned(),
            found: format!("{width} x {height}"),
        });
    }
    let bytes = (batch * channels * width * height * 3 * size_of::<f32>()) as u64;
    Memory::of(cx.services()).require(bytes, || format!("scaling to {width} x {height} pixels"))?;
    let planes = images.pixels().permute((0, 3, 1, 2))?.contiguous()?;
    let planes = resize(&planes, width, height, Method::Lanczos)?;
    Image::new(planes.permute((0, 2, 3, 1))?.contiguous()?)
}

/// A rectangle of pictures, in 256 steps from black to white; what of it lies outside is left out.
fn cut(images: &Image, [left, top]: [usize; 2], [width, height]: [usize; 2]) -> Result<Image, Error> {
    let (_, rows, columns, _) = images.dims();
    let (width, height) = (width.min(columns - left), height.min(rows - top));
    let part = images.pixels().narrow(1, top, height)?.narrow(2, left, width)?.contiguous()?;
    let values: Vec<f32> = part.flatten_all()?.to_vec1()?;
    let values: Vec<f32> = values.into_iter().map(|value| f32::from(to_byte(value)) / 255.0).collect();
    Image::new(Tensor::from_vec(values, part.dims(), &Device::Cpu)?)
}

/// Cuts the middle out of pictures.
#[derive(Node)]
#[node(category = "dataset/image", display_name = "Center Crop Images", outputs = ["images"], experimental)]
struct CenterCropImages {
    /// The pictures.
    images: Shared<Image>,
    /// Width in pixels.
    #[input(default = 512, range = 1..=LARGEST)]
    width: u32,
    /// Height in pixels.
    #[input(default = 512, range = 1..=LARGEST)]
    height: u32,
}

impl Run for CenterCropImages {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let (_, rows, columns, _) = self.images.dims();
        let (width, height) = (self.width as usize, self.height as usize);
        let place = [columns.saturating_sub(width) / 2, rows.saturating_sub(height) / 2];
        cut(&self.images, place, [width, height]).map_err(tell)
    }
}

/// Cuts a rectangle out of pictures at a place that a seed decides.
#[derive(Node)]
#[node(category = "dataset/image", display_name = "Random Crop Images", outputs = ["images"], experimental)]
struct RandomCropImages {
    /// The pictures.
    images: Shared<Image>,
    /// Width in pixels.
    #[input(default = 512, range = 1..=LARGEST)]
    width: u32,
    /// Height in pixels.
    #[input(default = 512, range = 1..=LARGEST)]
    height: u32,
    /// Which place.
    #[input(default = 0)]
    seed: u64,
}

impl Run for RandomCropImages {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let (_, rows, columns, _) = self.images.dims();
        let (width, height) = (self.width as usize, self.height as usize);
        let mut random = Random::new(self.seed);
        let left = random.up_to(columns.saturating_sub(width));
        let top = random.up_to(rows.saturating_sub(height));
        cut(&self.images, [left, top], [width, height]).map_err(tell)
    }
}

/// Subtracts a number from pictures and divides them by another, for networks that want that.
#[derive(Node)]
#[node(category = "dataset/image", display_name = "Normalize Images", outputs = ["images"], experimental)]
struct NormalizeImages {
    /// The pictures.
    images: Shared<Image>,
    /// What to subtract.
    #[input(default = 0.5, range = 0.0..=1.0, step = 0.5)]
    mean: f64,
    /// What to divide by.
    #[input(default = 0.5, range = 0.001..=1.0, step = 0.5)]
    std: f64,
}

impl Run for NormalizeImages {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let (mean, deviation) = (self.mean as f32, self.std as f32);
        changed(&self.images, |value| (value - mean) / deviation)
    }
}

/// Makes pictures brighter or darker.
#[derive(Node)]
#[node(category = "dataset/image", display_name = "Adjust Brightness", outputs = ["images"], experimental)]
struct AdjustBrightness {
    /// The pictures.
    images: Shared<Image>,
    /// How many times as bright.
    #[input(default = 1.0, range = 0.0..=2.0, step = 0.5)]
    factor: f64,
}

impl Run for AdjustBrightness {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let factor = self.factor as f32;
        changed(&self.images, |value| (value * factor).clamp(0.0, 1.0))
    }
}

/// Makes the difference between bright and dark larger or smaller.
#[derive(Node)]
#[node(category = "dataset/image", display_name = "Adjust Contrast", outputs = ["images"], experimental)]
struct AdjustContrast {
    /// The pictures.
    images: Shared<Image>,
    /// How many times as large.
    #[input(default = 1.0, range = 0.0..=2.0, step = 0.5)]
    factor: f64,
}

impl Run for AdjustContrast {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let factor = self.factor as f32;
        changed(&self.images, |value| ((value - 0.5) * factor + 0.5).clamp(0.0, 1.0))
    }
}

fn changed(images: &Image, change: impl Fn(f32) -> f32) -> Result<Image> {
    let make = || -> Result<Image, Error> {
        let values: Vec<f32> = images.pixels().flatten_all()?.to_vec1()?;
        let values: Vec<f32> = values.into_iter().map(change).collect();
        Image::new(Tensor::from_vec(values, images.dims(), &Device::Cpu)?)
    };
    make().map_err(tell)
}

/// Gives the pictures of a list in another order, which a seed decides.
#[derive(Node)]
#[node(category = "dataset/image", display_name = "Shuffle Image Dataset", input_is_list, outputs = ["images"], experimental)]
struct ShuffleDataset {
    /// The pictures.
    images: Vec<Shared<Image>>,
    /// Which order.
    #[input(default = 0)]
    seed: Vec<u64>,
}

impl Run for ShuffleDataset {
    type Output = Vec<Shared<Image>>;

    fn run(self, _: &Context<'_>) -> Result<Vec<Shared<Image>>> {
        let order = Random::new(first(&self.seed)).order(self.images.len());
        Ok(order.into_iter().map(|place| self.images[place].clone()).collect())
    }
}

/// Gives pictures and their texts in another order, the same for both, which a seed decides.
#[derive(Node)]
#[node(
    category = "dataset/image",
    display_name = "Shuffle Image-Text Dataset",
    input_is_list,
    outputs = ["images", "texts"],
    experimental
)]
struct ShuffleImageTextDataset {
    /// The pictures.
    images: Vec<Shared<Image>>,
    /// A text for each.
    texts: Vec<String>,
    /// Which order.
    #[input(default = 0)]
    seed: Vec<u64>,
}

impl Run for ShuffleImageTextDataset {
    type Output = (Vec<Shared<Image>>, Vec<String>);

    fn run(self, _: &Context<'_>) -> Result<(Vec<Shared<Image>>, Vec<String>)> {
        if self.texts.len() < self.images.len() {
            return Err(tell(Error::Unfit {
                what: "`texts`",
                expected: format!("one for each of {} pictures", self.images.len()),
                found: self.texts.len().to_string(),
            }));
        }
        let order = Random::new(first(&self.seed)).order(self.images.len());
        let images = order.iter().map(|place| self.images[*place].clone()).collect();
        Ok((images, order.iter().map(|place| self.texts[*place].clone()).collect()))
    }
}

/// Gives the pictures of a list as they are.
#[derive(Node)]
#[node(category = "dataset/image", display_name = "Merge Image Lists", input_is_list, outputs = ["images"], experimental)]
struct MergeImageLists {
    /// The pictures.
    images: Vec<Shared<Image>>,
}

impl Run for MergeImageLists {
    type Output = Vec<Shared<Image>>;

    fn run(self, _: &Context<'_>) -> Result<Vec<Shared<Image>>> {
        Ok(self.images)
    }
}

/// Leaves out pictures that look like one before them.
#[derive(Node)]
#[node(category = "dataset/image", display_name = "Image Deduplication", input_is_list, outputs = ["images"], experimental)]
struct ImageDeduplication {
    /// The pictures.
    images: Vec<Shared<Image>>,
    /// From which likeness on a picture is left out; at 1, only where all 64 marks of both agree.
    #[input(default = 0.95, range = 0.0..=1.0, step = 0.5)]
    similarity_threshold: Vec<f64>,
}

impl Run for ImageDeduplication {
    type Output = Vec<Shared<Image>>;

    fn run(self, _: &Context<'_>) -> Result<Vec<Shared<Image>>> {
        let threshold = self.similarity_threshold.first().copied().unwrap_or(0.95);
        let mut kept: Vec<(u64, Shared<Image>)> = Vec::new();
        for image in self.images {
            let marks = marks(&image).map_err(tell)?;
            let like = |other: u64| 1.0 - f64::from((marks ^ other).count_ones()) / 64.0;
            if !kept.iter().any(|(other, _)| like(*other) >= threshold) {
                kept.push((marks, image));
            }
        }
        Ok(kept.into_iter().map(|(_, image)| image).collect())
    }
}

/// Which of 8 x 8 cells of a picture are brighter than their mean.
fn marks(image: &Image) -> Result<u64, Error> {
    const SIDE: usize = 8;
    let planes = image.pixels().narrow(0, 0, 1)?.permute((0, 3, 1, 2))?.contiguous()?;
    let small = resize(&planes, SIDE, SIDE, Method::Lanczos)?.permute((0, 2, 3, 1))?.contiguous()?;
    let channels = small.dim(3)?;
    let bytes: Vec<u32> =
        small.flatten_all()?.to_vec1::<f32>()?.into_iter().map(|value| (value * 255.0).round() as u32).collect();
    // Pillow's weights of the colours.
    let grey = |pixel: &[u32]| match *pixel {
        [red, green, blue, ..] => (red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16,
        _ => pixel[0],
    };
    let grey: Vec<u32> = bytes.chunks_exact(channels).map(grey).collect();
    let mean = f64::from(grey.iter().sum::<u32>()) / grey.len() as f64;
    Ok(grey.iter().fold(0, |marks, value| (marks << 1) | u64::from(f64::from(*value) > mean)))
}

/// Lays pictures side by side, row after row.
#[derive(Node)]
#[node(category = "dataset/image", display_name = "Image Grid", input_is_list, outputs = ["images"], experimental)]
struct ImageGrid {
    /// The pictures.
    images: Vec<Shared<Image>>,
    /// How many to a row.
    #[input(default = 4, range = 1..=20)]
    columns: Vec<u32>,
    /// Width of each in pixels; they are stretched to it.
    #[input(default = 256, range = 32..=2048)]
    cell_width: Vec<u32>,
    /// Height of each in pixels.
    #[input(default = 256, range = 32..=2048)]
    cell_height: Vec<u32>,
    /// How many black pixels lie between them.
    #[input(default = 4, range = 0..=50)]
    padding: Vec<u32>,
}

impl Run for ImageGrid {
    type Output = Image;

    fn run(self, cx: &Context<'_>) -> Result<Image> {
        self.grid(cx).map_err(tell)
    }
}

impl ImageGrid {
    fn grid(&self, cx: &Context<'_>) -> Result<Image, Error> {
        let one = |numbers: &[u32]| numbers.first().copied().unwrap_or(1) as usize;
        let (across, padding) = (one(&self.columns).max(1), one(&self.padding));
        let (cell_width, cell_height) = (one(&self.cell_width), one(&self.cell_height));
        let down = self.images.len().div_ceil(across);
        if down == 0 {
            return Err(Error::Unfit {
                what: "the grid",
                expected: "at least one picture".to_owned(),
                found: "none".to_owned(),
            });
        }
        let width = across * cell_width + (across - 1) * padding;
        let height = down * cell_height + (down - 1) * padding;
        let bytes = (width * height * 3 * size_of::<f32>()) as u64;
        Memory::of(cx.services()).require(bytes, || format!("a grid of {width} x {height} pixels"))?;
        let mut grid = vec![0.0_f32; width * height * 3];
        for (index, image) in self.images.iter().enumerate() {
            let (x, y) = (index % across * (cell_width + padding), index / across * (cell_height + padding));
            let first = Image::new(image.pixels().narrow(0, 0, 1)?)?;
            let cell = scaled(&first, cell_width, cell_height, cx)?;
            let (channels, values) = (cell.dims().3, cell.values(0)?);
            for (row, line) in values.chunks_exact(cell_width * channels).enumerate() {
                let start = ((y + row) * width + x) * 3;
                for (to, pixel) in
                    grid[start..start + cell_width * 3].chunks_exact_mut(3).zip(line.chunks_exact(channels))
                {
                    match *pixel {
                        [red, green, blue, ..] => to.copy_from_slice(&[red, green, blue]),
                        _ => to.fill(pixel[0]),
                    }
                }
            }
        }
        Image::new(Tensor::from_vec(grid, (1, height, width, 3), &Device::Cpu)?)
    }
}

fn first(seeds: &[u64]) -> u64 {
    seeds.first().copied().unwrap_or_default()
}

/// The numbers that numpy's older generator draws from a seed, which is that of torch underneath.
struct Random(Generator);

impl Random {
    fn new(seed: u64) -> Self {
        Self(Generator::new(seed % u64::from(u32::MAX)))
    }

    /// A number up to `most`, which costs no draw where there is one only.
    fn up_to(&mut self, most: usize) -> usize {
        if most == 0 {
            return 0;
        }
        // Bits that are too many are drawn again.
        let mask = u32::MAX >> (most as u32).leading_zeros();
        loop {
            let drawn = (self.0.next_u32() & mask) as usize;
            if drawn <= most {
                return drawn;
            }
        }
    }

    /// The places from 0 on in another order.
    fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for place in (1..count).rev() {
            let other = self.up_to(place);
            order.swap(place, other);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `numpy.random.seed(s); numpy.random.permutation(n)` and `randint(0, n)`, numpy 2.
    #[test]
    fn the_order_is_numpys() {
        NUMPY.iter().for_each(|(seed, order)| assert_eq!(Random::new(*seed).order(order.len()), *order, "{seed}"));
        let drawn = |seed: u64, most: usize| {
            let mut random = Random::new(seed);
            [(); 4].map(|()| random.up_to(most))
        };
        NUMPY_INTEGERS
            .iter()
            .for_each(|(seed, most, expected)| assert_eq!(drawn(*seed, *most), *expected, "{seed} {most}"));
    }

    const NUMPY: [(u64, &[usize]); 3] = [
        (0, &[2, 8, 4, 9, 1, 6, 7, 3, 0, 5]),
        (7, &[8, 5, 0, 2, 1, 9, 7, 3, 6, 4]),
        (u64::MAX, &[2, 8, 4, 9, 1, 6, 7, 3, 0, 5]),
    ];
    const NUMPY_INTEGERS: [(u64, usize, [usize; 4]); 2] = [(0, 9, [5, 0, 3, 3]), (3, 7, [2, 0, 1, 3])];
}

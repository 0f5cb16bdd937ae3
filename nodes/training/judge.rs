//! Pictures side by side, and how alike they are.

use super::canvas::{BLACK, Canvas, text_width};
use crate::error::{Error, tell};
use crate::wires::{Image, Mask};
use candle_core::{Device, Tensor};
use paraflow_diffusion::resize::{Method, resize};
use paraflow_engine::{Context, Node, NodeDef, Result, Run, Shared, Shown};
use serde_json::json;

pub(crate) fn nodes() -> Vec<NodeDef> {
    vec![NodeDef::of::<CompareGrid>(), NodeDef::of::<SSIM>()]
}

/// Puts pictures into a table with words beside the rows and above the columns: each input is a row, each picture of its
/// batch a column.
#[derive(Node)]
#[node(category = "personalize", display_name = "Compare Grid")]
struct CompareGrid {
    /// The pictures of the first row.
    images_1: Shared<Image>,
    /// Words beside the rows, a line for each.
    #[input(default = "", multiline)]
    row_labels: String,
    /// Words above the columns, a line for each.
    #[input(default = "", multiline)]
    column_labels: String,
    /// The side of a picture in the table, in pixels. 0 leaves the first picture's size.
    #[input(default = 0, range = 0..=2048)]
    cell: u32,
    /// The pictures of the second row.
    images_2: Option<Shared<Image>>,
    /// The pictures of the third row.
    images_3: Option<Shared<Image>>,
    /// The pictures of the fourth row.
    images_4: Option<Shared<Image>>,
    /// The pictures of the fifth row.
    images_5: Option<Shared<Image>>,
    /// The pictures of the sixth row.
    images_6: Option<Shared<Image>>,
}

impl Run for CompareGrid {
    type Output = Image;

    fn run(self, _: &Context<'_>) -> Result<Image> {
        let more = [&self.images_2, &self.images_3, &self.images_4, &self.images_5, &self.images_6];
        let rows: Vec<&Image> =
            std::iter::once(&*self.images_1).chain(more.into_iter().flatten().map(|row| &**row)).collect();
        let lines = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
        grid(&rows, &lines(&self.row_labels), &lines(&self.column_labels), self.cell as usize).map_err(tell)
    }
}

fn grid(rows: &[&Image], row_labels: &[String], column_labels: &[String], cell: usize) -> Result<Image, Error> {
    const GAP: usize = 6;
    const SIZE: f32 = 12.0;
    let (_, height, width, _) = rows[0].dims();
    let longest = width.max(height) as f64;
    let scale = if cell == 0 { 1.0 } else { cell as f64 / longest };
    let scaled = |side: usize| ((side as f64 * scale).round() as usize).max(1);
    let (width, height) = (scaled(width), scaled(height));
    let columns = rows.iter().map(|row| row.dims().0).max().unwrap_or(1);
    let words = row_labels.iter().map(|label| text_width(label, SIZE)).fold(0.0, f32::max);
    let left = GAP + if words > 0.0 { words as usize + 2 * GAP } else { 0 };
    let top = GAP + if column_labels.iter().any(|label| !label.is_empty()) { SIZE as usize + 2 * GAP } else { 0 };
    let (sheet_width, sheet_height) = (left + columns * (width + GAP), top + rows.len() * (height + GAP));
    let mut canvas = Canvas::new(sheet_width as u32, sheet_height as u32)?;
    for (index, label) in column_labels.iter().take(columns).enumerate() {
        canvas.text((left + index * (width + GAP)) as f32, GAP as f32 + 2.0, label, SIZE, BLACK);
    }
    for (index, row) in rows.iter().enumerate() {
        let y = top + index * (height + GAP);
        if let Some(label) = row_labels.get(index) {
            canvas.text(GAP as f32, (y + height / 2) as f32 - SIZE / 2.0, label, SIZE, BLACK);
        }
        let planes = resize(&colours(row)?.permute((0, 3, 1, 2))?.contiguous()?, width, height, Method::Area)?;
        let pictures = planes.permute((0, 2, 3, 1))?.contiguous()?;
        for picture in 0..row.dims().0 {
            let values: Vec<f32> = pictures.narrow(0, picture, 1)?.flatten_all()?.to_vec1()?;
            canvas.picture(left + picture * (width + GAP), y, &values, width);
        }
    }
    canvas.image()
}

/// `[batch, height, width, 3]`.
pub(super) fn colours(image: &Image) -> Result<Tensor, Error> {
    let (batch, height, width, channels) = image.dims();
    Ok(match channels {
        1 => image.pixels().broadcast_as((batch, height, width, 3))?.contiguous()?,
        _ => image.pixels().narrow(3, 0, 3)?.contiguous()?,
    })
}

/// Measures how alike pictures are in structure (SSIM): 1 for equal ones, about 0 for pictures that have nothing in common.
///
/// Grey pictures, windows of 7 x 7 pixels, as scikit-image measures by default. Wang et al. 2004.
#[derive(Node)]
#[node(category = "personalize", display_name = "SSIM", sink, outputs = ["mean", "map"])]
#[expect(clippy::upper_case_acronyms, reason = "the name on the wire")]
struct SSIM {
    /// Some pictures.
    images_a: Shared<Image>,
    /// Pictures to compare them with, one by one; one alone is compared with all. Left out, the pictures of `images_a` are
    /// compared with each other, every pair.
    images_b: Option<Shared<Image>>,
    /// Where not to look: only pixels at which the mask is 0 count, such as the part of a picture that an edit should leave.
    mask: Option<Shared<Mask>>,
}

impl Run for SSIM {
    type Output = Shown<(f64, Image)>;

    fn run(self, cx: &Context<'_>) -> Result<Shown<(f64, Image)>> {
        let (mean, map) = self.compare(cx).map_err(tell)?;
        Ok(Shown((mean, map), json!({"text": [format!("SSIM {mean:.4}")]})))
    }
}

impl SSIM {
    fn compare(&self, cx: &Context<'_>) -> Result<(f64, Image), Error> {
        let first = Greys::of(&self.images_a)?;
        let second = self.images_b.as_deref().map(Greys::of).transpose()?;
        let pairs: Vec<Pair<'_>> = match &second {
            Some(second) => first.pairs_with(second)?,
            None => first.pairs()?,
        };
        let (height, width) = (first.height, first.width);
        if height < WINDOW || width < WINDOW {
            let expected = format!("pictures of at least {WINDOW} x {WINDOW} pixels");
            return Err(Error::Unfit { what: "SSIM", expected, found: format!("{width} x {height}") });
        }
        let counted = self.counted(height, width)?;
        let (mut sum, mut map) = (0.0, vec![0.0; (height - WINDOW + 1) * (width - WINDOW + 1)]);
        for (a, b) in &pairs {
            if cx.check().is_err() {
                return Err(paraflow_diffusion::Error::Stopped.into());
            }
            let values = ssim(a, b, height, width);
            let inside = values.iter().zip(&counted).filter(|(_, counts)| **counts).map(|(value, _)| value);
            sum += inside.sum::<f64>() / counted.iter().filter(|counts| **counts).count() as f64;
            map.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value / pairs.len() as f64);
        }
        let grey = map.iter().map(|value| value.clamp(0.0, 1.0) as f32).collect();
        let map = Tensor::from_vec::<_, f32>(grey, (1, height - WINDOW + 1, width - WINDOW + 1, 1), &Device::Cpu)?;
        Ok((sum / pairs.len() as f64, Image::new(map)?))
    }

    /// Which windows count: those whose middle the mask leaves out.
    fn counted(&self, height: usize, width: usize) -> Result<Vec<bool>, Error> {
        let (rows, columns) = (height - WINDOW + 1, width - WINDOW + 1);
        let Some(mask) = &self.mask else { return Ok(vec![true; rows * columns]) };
        let planes = resize(&mask.values().narrow(0, 0, 1)?.unsqueeze(1)?, width, height, Method::NearestExact)?;
        let values: Vec<f32> = planes.flatten_all()?.to_vec1()?;
        let middle = |index: usize| (index / columns + WINDOW / 2) * width + index % columns + WINDOW / 2;
        let counted: Vec<bool> = (0..rows * columns).map(|index| values[middle(index)] < 0.5).collect();
        if counted.contains(&true) {
            return Ok(counted);
        }
        let expected = "a mask that leaves something to compare".to_owned();
        Err(Error::Unfit { what: "`mask`", expected, found: "one that selects everything".to_owned() })
    }
}

/// Two pictures to compare.
type Pair<'a> = (&'a [f64], &'a [f64]);

/// Grey pictures of one size.
struct Greys {
    height: usize,
    width: usize,
    pictures: Vec<Vec<f64>>,
}

impl Greys {
    fn of(image: &Image) -> Result<Self, Error> {
        let (batch, height, width, _) = image.dims();
        let colours = colours(image)?;
        let grey = |picture| -> Result<Vec<f64>, Error> {
            let values: Vec<f32> = colours.narrow(0, picture, 1)?.flatten_all()?.to_vec1()?;
            // ITU-R 709, as scikit-image's rgb2gray.
            Ok(values
                .as_chunks::<3>()
                .0
                .iter()
                .map(|[r, g, b]| 0.2125 * f64::from(*r) + 0.7154 * f64::from(*g) + 0.0721 * f64::from(*b))
                .collect())
        };
        Ok(Self { height, width, pictures: (0..batch).map(grey).collect::<Result<_, _>>()? })
    }

    fn pairs(&self) -> Result<Vec<Pair<'_>>, Error> {
        let all = self.pictures.as_slice();
        let pairs: Vec<Pair<'_>> = all
            .iter()
            .enumerate()
            .flat_map(|(index, a)| all[index + 1..].iter().map(move |b| (a.as_slice(), b.as_slice())))
            .collect();
        if pairs.is_empty() {
            let expected = "two pictures or more, or pictures on `images_b`".to_owned();
            return Err(Error::Unfit { what: "`images_a`", expected, found: "one picture".to_owned() });
        }
        Ok(pairs)
    }

    fn pairs_with<'a>(&'a self, other: &'a Self) -> Result<Vec<Pair<'a>>, Error> {
        let (ours, theirs) = (self.pictures.len(), other.pictures.len());
        if (self.width, self.height) != (other.width, other.height) || (ours != theirs && theirs != 1) {
            let expected = format!("{ours} pictures or one, {} x {} pixels", self.width, self.height);
            let found = format!("{theirs} of {} x {}", other.width, other.height);
            return Err(Error::Unfit { what: "`images_b`", expected, found });
        }
        let theirs = other.pictures.iter().cycle();
        Ok(self.pictures.iter().zip(theirs).map(|(a, b)| (a.as_slice(), b.as_slice())).collect())
    }
}

const WINDOW: usize = 7;

/// The similarity of each window, `[height - 6, width - 6]`, of pictures from 0 to 1.
fn ssim(a: &[f64], b: &[f64], height: usize, width: usize) -> Vec<f64> {
    let (c1, c2) = (0.01_f64.powi(2), 0.03_f64.powi(2));
    let count = (WINDOW * WINDOW) as f64;
    // Sample covariance, as scikit-image.
    let unbiased = count / (count - 1.0);
    let mean = |of: &dyn Fn(usize) -> f64| window_means(of, height, width);
    let (ma, mb) = (mean(&|i| a[i]), mean(&|i| b[i]));
    let (aa, bb, ab) = (mean(&|i| a[i] * a[i]), mean(&|i| b[i] * b[i]), mean(&|i| a[i] * b[i]));
    (0..ma.len())
        .map(|i| {
            let (x, y) = (ma[i], mb[i]);
            let (vx, vy, vxy) = (unbiased * (aa[i] - x * x), unbiased * (bb[i] - y * y), unbiased * (ab[i] - x * y));
            (2.0 * x * y + c1) * (2.0 * vxy + c2) / ((x * x + y * y + c1) * (vx + vy + c2))
        })
        .collect()
}

/// The mean of every window: along rows, then down.
fn window_means(of: &dyn Fn(usize) -> f64, height: usize, width: usize) -> Vec<f64> {
    let columns = width - WINDOW + 1;
    let across: Vec<f64> =
        (0..height).flat_map(|y| (0..columns).map(move |x| (x..x + WINDOW).map(|x| of(y * width + x)).sum())).collect();
    let count = (WINDOW * WINDOW) as f64;
    (0..height - WINDOW + 1)
        .flat_map(|y| {
            let across = &across;
            (0..columns).map(move |x| (y..y + WINDOW).map(|y| across[y * columns + x]).sum::<f64>() / count)
        })
        .collect()
}

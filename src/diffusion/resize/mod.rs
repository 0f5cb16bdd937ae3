//! Resizing latents, masks and pictures as ComfyUI does: torch's interpolation, Pillow's Lanczos filter, and spherical
//! interpolation of latents.
//!
//! Results are equal to theirs to the bit (spherical interpolation: nearly so), since a value that is off by one part in
//! ten million may turn a byte of a picture.

mod bislerp;
mod pillow;
mod planes;

use candle_core::{DType, Tensor};

use crate::{Error, Result};

/// How to make up the values between the cells of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The cell that the new one's centre lies in.
    NearestExact,
    /// Linear between the nearest two, in both directions; no smoothing when made smaller.
    Bilinear,
    /// The mean of the cells that the new one covers.
    Area,
    /// A cubic through the nearest four (Keys 1981, with a = −0.75); no smoothing when made smaller.
    Bicubic,
    /// Spherical between the nearest two, on the vectors of channels: keeps the length of a latent's vectors, which
    /// linear means shorten.
    Bislerp,
    /// Windowed sinc of three lobes, smoothing when made smaller, on 8-bit pictures.
    Lanczos,
}

impl Method {
    /// The ones for latents, in the order in which ComfyUI offers them.
    pub const LATENT: &[Self] = &[Self::NearestExact, Self::Bilinear, Self::Area, Self::Bicubic, Self::Bislerp];
    /// The ones for pictures, in the order in which ComfyUI offers them.
    pub const IMAGE: &[Self] = &[Self::NearestExact, Self::Bilinear, Self::Area, Self::Bicubic, Self::Lanczos];

    /// Its name on the wire, ComfyUI's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NearestExact => "nearest-exact",
            Self::Bilinear => "bilinear",
            Self::Area => "area",
            Self::Bicubic => "bicubic",
            Self::Bislerp => "bislerp",
            Self::Lanczos => "lanczos",
        }
    }
}

impl std::str::FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let all = [Self::LATENT, &[Self::Lanczos]].concat();
        all.iter().find(|method| method.name() == name).copied().ok_or_else(|| Error::UnknownName {
            kind: "way of resizing",
            name: name.to_owned(),
            known: all.iter().map(|method| method.name()).collect(),
        })
    }
}

/// Resizes every channel of every entry of a batch.
///
/// # Shapes
/// `x` is `[batch, channels, rows, columns]`, the result `[batch, channels, height, width]`, `f32`. `Lanczos` takes values
/// in 0 to 1 and gives multiples of 1/255; of four channels it takes the last for opacity.
///
/// # Errors
/// The new or the old size has no cells; `x` is of another rank.
pub fn resize(x: &Tensor, width: usize, height: usize, method: Method) -> Result<Tensor> {
    let grid = Grid::of(x)?;
    if width == 0 || height == 0 {
        return Err(Error::EmptySize { width, height });
    }
    let resized = match method {
        Method::Lanczos => pillow::resize(&grid, width, height, pillow::LANCZOS),
        Method::Bislerp => bislerp::resize(&grid, width, height),
        _ => planes::resize(&grid, width, height, method),
    };
    Ok(Tensor::from_vec(resized, (grid.batch, grid.channels, height, width), x.device())?)
}

/// Resizes pictures as Pillow's `BICUBIC` does: a cubic (a = -0.5) that grows to smooth what is made smaller, on 8-bit values. It
/// is what networks that judge pictures were trained to see.
///
/// # Shapes
/// As [`resize`] with [`Method::Lanczos`].
///
/// # Errors
/// As [`resize`].
pub fn resize_smoothly(x: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    let grid = Grid::of(x)?;
    if width == 0 || height == 0 {
        return Err(Error::EmptySize { width, height });
    }
    let resized = pillow::resize(&grid, width, height, pillow::CUBIC);
    Ok(Tensor::from_vec(resized, (grid.batch, grid.channels, height, width), x.device())?)
}

/// The same filter on numbers as they are, as torch's antialiased bicubic interpolation does.
///
/// # Shapes
/// As [`resize`].
///
/// # Errors
/// As [`resize`].
pub fn resize_finely(x: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    let grid = Grid::of(x)?;
    if width == 0 || height == 0 {
        return Err(Error::EmptySize { width, height });
    }
    let resized = pillow::resize_numbers(&grid, width, height, pillow::CUBIC);
    Ok(Tensor::from_vec(resized, (grid.batch, grid.channels, height, width), x.device())?)
}

/// Cuts equal margins off two sides until width and height are in the proportion of a new size.
///
/// # Shapes
/// `[batch, channels, rows, columns]`, of which rows or columns shrink.
///
/// # Errors
/// Nothing would be left; a size is 0.
pub fn crop_to_aspect(x: &Tensor, width: usize, height: usize) -> Result<Tensor> {
    let (_, _, rows, columns) = x.dims4()?;
    if width == 0 || height == 0 || rows == 0 || columns == 0 {
        return Err(Error::EmptySize { width, height });
    }
    let old = columns as f64 / rows as f64;
    let new = width as f64 / height as f64;
    let margin = |size: usize, ratio: f64| ((size as f64 - size as f64 * ratio) / 2.0).round_ties_even() as usize;
    let (left, top) = if old > new { (margin(columns, new / old), 0) } else { (0, margin(rows, old / new)) };
    if 2 * left >= columns || 2 * top >= rows {
        return Err(Error::EmptySize { width: columns.saturating_sub(2 * left), height: rows.saturating_sub(2 * top) });
    }
    Ok(x.narrow(2, top, rows - 2 * top)?.narrow(3, left, columns - 2 * left)?)
}

/// Values of a tensor `[batch, channels, rows, columns]`, row after row.
struct Grid {
    values: Vec<f32>,
    batch: usize,
    channels: usize,
    rows: usize,
    columns: usize,
}

impl Grid {
    fn of(x: &Tensor) -> Result<Self> {
        let (batch, channels, rows, columns) = x.dims4()?;
        if rows == 0 || columns == 0 {
            return Err(Error::EmptySize { width: columns, height: rows });
        }
        let values = x.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?;
        Ok(Self { values, batch, channels, rows, columns })
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn values(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn comfyui_resizes_the_same() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/resize/comfyui.safetensors");
        let recorded = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let mut names: Vec<_> = recorded.keys().filter(|name| name.starts_with("to/")).collect();
        names.sort();
        assert!(names.len() > 80, "only {} were recorded", names.len());
        for name in names {
            let parts: Vec<_> = name.split('/').collect();
            let (width, height) = parts[4].split_once('x').unwrap();
            let (width, height) = (width.parse().unwrap(), height.parse().unwrap());
            let method: Method = parts[1].parse().unwrap();
            let mut x = recorded[&format!("from/{}", parts[3])].clone();
            if parts[2] == "center" {
                x = crop_to_aspect(&x, width, height).unwrap();
            }
            let resized = resize(&x, width, height, method).unwrap();
            assert_eq!(resized.dims(), recorded[name].dims(), "{name}");
            let (found, expected) = (values(&resized), values(&recorded[name]));
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            let tolerance = match (method, width * height) {
                // Near-opposite vectors turn the last bit of an arc cosine into this much.
                (Method::Bislerp, _) => 1e-5,
                // torch takes the mean of everything by another route.
                (Method::Area, 1) => 1e-7,
                _ => 0.0,
            };
            assert!(worst <= tolerance, "{name}: off by {worst:e}");
        }
    }

    #[test]
    fn empty_sizes_are_errors() {
        let x = Tensor::zeros((1, 4, 3, 2), DType::F32, &Device::Cpu).unwrap();
        assert!(matches!(resize(&x, 0, 8, Method::Area), Err(Error::EmptySize { width: 0, height: 8 })));
        assert!(matches!(crop_to_aspect(&x, 8, 0), Err(Error::EmptySize { .. })));
        // A sliver of a proportion leaves nothing of two columns.
        assert!(matches!(crop_to_aspect(&x, 1, 10_000), Err(Error::EmptySize { width: 0, height: 3 })));
    }
}

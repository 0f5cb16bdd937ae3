//! Packed weights as bytes, for those who keep them in files, and matrices over bytes that were kept.

use std::ops::Deref;
use std::sync::Arc;

use crate::half::Halves;
use crate::matrix::{HalfLine, LINE, Line, Matrix, Precision, Store};

/// Stands for the order and the meaning of a packed weight's bytes, which are the machine's own and the same for every
/// instruction set. To be raised with every change of them: a test notices one.
pub const LAYOUT: u32 = 1;

/// Bytes that somebody else keeps, a mapped file for one. They must stay where they are.
pub type Lent = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// What decides a packed weight's bytes beside the layer's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Form {
    /// How many numbers the layer gives.
    pub output: usize,
    /// How many it takes.
    pub input: usize,
    /// Rows and columns of a convolution's kernel, 1 for a plain product.
    pub kernel: usize,
    /// In which numbers the product multiplies.
    pub precision: Precision,
    /// In which numbers of 16 bits the weight stays, if it does: [`Matrix::read_halves`].
    pub halves: Option<Halves>,
}

impl Form {
    /// How many bytes the packed weight has.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let line = if self.halves.is_some() { size_of::<HalfLine>() } else { size_of::<Line>() };
        self.kernel * self.kernel * self.precision.places(self.input) * self.output.div_ceil(LINE) * line
    }
}

/// Lines of a matrix: its own, or somebody else's bytes.
pub(crate) enum Lines<L> {
    Own(Vec<L>),
    Lent(Lent),
}

/// Lines that are numbers and nothing else.
///
/// # Safety
/// There must be no bytes between or after the numbers, and any bytes must be numbers.
pub(crate) unsafe trait Plain {}

// SAFETY: sixteen f32, as long as their alignment asks for.
unsafe impl Plain for Line {}
// SAFETY: sixteen u16, as long as their alignment asks for.
unsafe impl Plain for HalfLine {}

impl<L: Plain> Deref for Lines<L> {
    type Target = [L];

    #[inline]
    fn deref(&self) -> &[L] {
        match self {
            Self::Own(lines) => lines,
            Self::Lent(bytes) => lines((**bytes).as_ref()).expect("what is lent stays where it is"),
        }
    }
}

/// Bytes as lines; `None` where they do not begin and end at the borders of some.
#[inline]
fn lines<L: Plain>(bytes: &[u8]) -> Option<&[L]> {
    // SAFETY: any bytes are numbers, says `Plain`.
    let (before, lines, after) = unsafe { bytes.align_to::<L>() };
    (before.is_empty() && after.is_empty()).then_some(lines)
}

/// Lines as bytes.
fn bytes<L: Plain>(lines: &[L]) -> &[u8] {
    // SAFETY: they are numbers without gaps, says `Plain`, and bytes have no alignment.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
}

impl Matrix {
    /// The packed weight as it lies in memory, as many bytes as its [`Form`] says.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.store {
            Store::Ready(lines) => bytes(lines),
            Store::Halves(lines, _) => bytes(lines),
        }
    }

    /// The matrix over packed bytes that are somewhere else. It takes no memory of its own. `None` where the bytes are not as
    /// many as the form says, or do not begin at a multiple of 64.
    #[must_use]
    pub fn lent(form: &Form, bytes: Lent) -> Option<Self> {
        let found = (*bytes).as_ref();
        if found.len() != form.bytes() || !found.as_ptr().addr().is_multiple_of(align_of::<Line>()) {
            return None;
        }
        let store = match form.halves {
            Some(halves) => Store::Halves(Lines::Lent(bytes), halves),
            None => Store::Ready(Lines::Lent(bytes)),
        };
        Some(Self::of(form.output, form.kernel * form.kernel, form.input, form.precision, store))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::testing::numbers;
    use crate::{Epilogue, Window, conv2d, linear};

    /// A weight of this form with numbers that look random.
    fn packed(form: &Form) -> Matrix {
        let weight = numbers(7, form.output * form.input * form.kernel * form.kernel);
        let Form { output, input, kernel, precision, halves } = *form;
        match halves {
            // The upper halves of their bits, which are f16 too.
            Some(halves) => Matrix::read_halves(output, input, kernel, halves, &|start, out| {
                let bits = weight[start..].iter().map(|x| (x.to_bits() >> 16) as u16 & 0xbfff);
                out.iter_mut().zip(bits).for_each(|(out, bits)| *out = bits);
            }),
            None => Matrix::read(output, input, kernel, precision, &|start, out| {
                out.copy_from_slice(&weight[start..start + out.len()]);
            }),
        }
    }

    fn forms() -> impl Iterator<Item = Form> {
        let numbers = [
            (Precision::Single, None),
            (Precision::Bf16, None),
            (Precision::Single, Some(Halves::F16)),
            (Precision::Single, Some(Halves::Bf16)),
        ];
        let sizes = [(70, 33, 1), (64, 16, 3), (5, 18, 3)];
        sizes.into_iter().flat_map(move |(output, input, kernel)| {
            numbers.into_iter().map(move |(precision, halves)| Form { output, input, kernel, precision, halves })
        })
    }

    /// The bytes of a range.
    struct Kept(Vec<u8>, Range<usize>);

    impl AsRef<[u8]> for Kept {
        fn as_ref(&self) -> &[u8] {
            &self.0[self.1.clone()]
        }
    }

    /// Bytes that begin so many after a multiple of 64.
    fn kept(content: &[u8], offset: usize) -> Lent {
        let mut room = vec![0; content.len() + offset + 64];
        let start = room.as_ptr().align_offset(64) + offset;
        let range = start..start + content.len();
        room[range.clone()].copy_from_slice(content);
        Arc::new(Kept(room, range))
    }

    #[test]
    fn a_lent_matrix_multiplies_as_its_owner_does() {
        for form in forms() {
            let own = packed(&form);
            assert_eq!(own.as_bytes().len(), form.bytes(), "{form:?}");
            let lent = Matrix::lent(&form, kept(own.as_bytes(), 64)).unwrap();
            assert_eq!(lent.as_bytes(), own.as_bytes());
            let side = |matrix: &Matrix, x: &[f32]| match form.kernel {
                1 => linear(x, 1, matrix, Epilogue::default()),
                kernel => {
                    let window = Window { batch: 1, height: 4, width: 5, kernel, stride: 1, before: 1, after: 1 };
                    conv2d(x, &window, matrix, Epilogue::default())
                }
            };
            let x = numbers(3, 20 * form.input);
            assert_eq!(side(&lent, &x), side(&own, &x), "{form:?}");
            if form.precision == Precision::Single && form.kernel == 1 {
                let gradient = numbers(4, 20 * form.output);
                let back = |matrix: &Matrix| linear(&gradient, 1, matrix.turned(), Epilogue::default());
                assert_eq!(back(&lent), back(&own), "{form:?}");
            }
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_refused() {
        let form = Form { output: 70, input: 33, kernel: 1, precision: Precision::Single, halves: None };
        let own = packed(&form);
        assert!(Matrix::lent(&form, kept(own.as_bytes(), 128)).is_some());
        for offset in [1, 32, 63] {
            assert!(Matrix::lent(&form, kept(own.as_bytes(), offset)).is_none(), "{offset}");
        }
        assert!(Matrix::lent(&form, kept(&own.as_bytes()[64..], 0)).is_none());
        assert!(Matrix::lent(&Form { halves: Some(Halves::F16), ..form }, kept(own.as_bytes(), 0)).is_none());
    }

    /// Whoever changes how weights are packed raises [`LAYOUT`], so that no file of before is taken for one of now.
    #[test]
    fn the_layout_is_the_one_that_its_number_stands_for() {
        let fold = |seed: u64, byte: &u8| (seed ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let all = forms().fold(0xcbf2_9ce4_8422_2325, |seed, form| packed(&form).as_bytes().iter().fold(seed, fold));
        assert_eq!((LAYOUT, all), (1, 5_219_852_866_324_943_859));
    }
}

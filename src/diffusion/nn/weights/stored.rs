//! Numbers that are read when a layer asks for them.

use std::ops::Range;

use candle_core::{Device, Tensor};
use half::f16;
use paraflow_kernels::{Form, Halves, Matrix, Precision};

use super::super::compute::{Compute, Kept};
use super::super::mapping::Mapping;
use super::super::numbers::{Numbers, round_to_half, to_e4m3, to_e5m2};
use super::super::weight::LARGE;
use super::item::Bytes;
use super::{Item, Weights};
use crate::error::Result;

/// One tensor's place in its file: known to be there, of a fitting shape and a readable type.
#[derive(Clone)]
pub(in crate::nn) struct Stored {
    pub(super) weights: Weights,
    pub(super) item: Item,
    pub(super) numbers: Numbers,
    /// What every number is multiplied by.
    pub(super) scale: f32,
}

/// What a tensor's bytes become when they are read.
#[derive(Debug)]
#[expect(dead_code, reason = "written into the names of kept files by `Debug`")]
pub(in crate::nn) struct Reading {
    numbers: Numbers,
    /// The bits of the factor.
    scale: u32,
    transposed: bool,
    kept: Kept,
}

impl Stored {
    pub(in crate::nn) fn shape(&self) -> &[usize] {
        &self.item.entry.shape
    }

    /// All its numbers in order.
    pub(in crate::nn) fn to_f32(&self) -> Vec<f32> {
        let mut numbers = vec![0.0; self.shape().iter().product()];
        self.read(0, &mut numbers);
        numbers
    }

    /// Its numbers from the `start`-th on, as many as `out` takes. Panics beyond the end.
    pub(in crate::nn) fn read(&self, start: usize, out: &mut [f32]) {
        self.read_as_stored(start, out);
        if self.is_rounded() {
            match self.weights.compute.kept() {
                Kept::AsStored => {}
                Kept::Half => round_to_half(out),
                Kept::E4m3 => out.iter_mut().for_each(|number| *number = to_e4m3(*number)),
                Kept::E5m2 => out.iter_mut().for_each(|number| *number = to_e5m2(*number)),
            }
        }
    }

    /// Whether it is kept in other numbers than the file has. What is multiplied by a scale is kept as it is.
    fn is_rounded(&self) -> bool {
        match self.weights.compute.kept() {
            Kept::AsStored => false,
            Kept::Half => self.numbers != Numbers::F16 && self.scale == 1.0,
            Kept::E4m3 | Kept::E5m2 => self.scale == 1.0,
        }
    }

    fn read_as_stored(&self, start: usize, out: &mut [f32]) {
        if let Some(terms) = &self.item.sum {
            out.fill(0.0);
            let mut term = vec![0.0; out.len()];
            for (factor, stored) in terms.iter() {
                stored.read(start, &mut term);
                out.iter_mut().zip(&term).for_each(|(sum, number)| *sum += factor * number);
            }
            return;
        }
        let width = self.numbers.width();
        let all = self.item.stored();
        if let (true, &[rows, columns]) = (self.item.transposed, self.shape()) {
            let mut number = [0.0];
            for (at, out) in (start..).zip(out) {
                let from = at % columns * rows + at / columns;
                self.numbers.convert(self.scale, &all[from * width..(from + 1) * width], &mut number);
                *out = number[0];
            }
            return;
        }
        self.numbers.convert(self.scale, &all[start * width..(start + out.len()) * width], out);
    }

    /// Where it is computed with.
    pub(in crate::nn) fn compute(&self) -> &Compute {
        &self.weights.compute
    }

    /// Which numbers of 16 bits it has, if they can be read as they are.
    pub(in crate::nn) fn halves(&self) -> Option<Halves> {
        match self.numbers {
            _ if self.item.transposed => None,
            // Numbers of eight bits are some of those of sixteen.
            _ if self.is_rounded() => (self.weights.compute.kept() != Kept::Half).then_some(Halves::F16),
            Numbers::F16 => Some(Halves::F16),
            Numbers::Bf16 => Some(Halves::Bf16),
            _ => None,
        }
    }

    /// The bits of its numbers from the `start`-th on, as many as `out` takes. Panics beyond the end.
    pub(in crate::nn) fn read_halves(&self, start: usize, out: &mut [u16]) {
        if self.is_rounded() {
            let mut numbers = vec![0.0; out.len()];
            self.read(start, &mut numbers);
            out.iter_mut().zip(numbers).for_each(|(out, number)| *out = f16::from_f32(number).to_bits());
            return;
        }
        let (stored, _) = self.item.stored()[2 * start..2 * (start + out.len())].as_chunks::<2>();
        out.iter_mut().zip(stored).for_each(|(out, bytes)| *out = u16::from_le_bytes(*bytes));
    }

    /// Tells the system that nobody will read it soon, so that its pages do not count as this process's memory. They stay in
    /// the system's cache of files.
    pub(in crate::nn) fn release(&self) {
        match &self.item.sum {
            Some(terms) => terms.iter().for_each(|(_, stored)| stored.release()),
            None => {
                if let Some((mapping, range)) = self.mapped() {
                    mapping.release(range);
                }
            }
        }
    }

    /// The file that its bytes lie in, and where; `None` for what is made of several tensors or lies in memory.
    pub(in crate::nn) fn mapped(&self) -> Option<(&Mapping, Range<usize>)> {
        match &*self.item.bytes {
            Bytes::Mapped(mapping) if self.item.sum.is_none() => Some((mapping, self.item.entry.range.clone())),
            _ => None,
        }
    }

    /// All that decides its numbers beside those bytes.
    pub(in crate::nn) fn reading(&self) -> Reading {
        Reading {
            numbers: self.numbers,
            scale: self.scale.to_bits(),
            transposed: self.item.transposed,
            kept: if self.is_rounded() { self.weights.compute.kept() } else { Kept::AsStored },
        }
    }

    /// How a layer's product takes it: `[output, input, kernel, kernel]`, in numbers of choice.
    pub(in crate::nn) fn form(&self, (output, input, kernel): (usize, usize, usize), precision: Precision) -> Form {
        let in_halves = output * input * kernel * kernel >= LARGE && precision == Precision::Single;
        Form { output, input, kernel, precision, halves: self.halves().filter(|_| in_halves) }
    }

    /// Packs it.
    pub(in crate::nn) fn pack(&self, form: &Form) -> Matrix {
        let Form { output, input, kernel, precision, halves } = *form;
        match halves {
            Some(halves) => {
                Matrix::read_halves(output, input, kernel, halves, &|start, out| self.read_halves(start, out))
            }
            None => Matrix::read(output, input, kernel, precision, &|start, out| self.read(start, out)),
        }
    }

    /// The whole tensor in the type and on the device of its [`Weights`].
    pub(in crate::nn) fn tensor(&self) -> Result<Tensor> {
        self.placed(self.to_f32())
    }

    /// The same for adapters to work on: a sum is not rounded before they have.
    pub(in crate::nn) fn tensor_to_change(&self) -> Result<Tensor> {
        if self.item.sum.is_none() {
            return self.tensor();
        }
        let mut numbers = vec![0.0; self.shape().iter().product()];
        self.read_as_stored(0, &mut numbers);
        self.placed(numbers)
    }

    fn placed(&self, numbers: Vec<f32>) -> Result<Tensor> {
        let tensor = Tensor::from_vec(numbers, self.shape(), &Device::Cpu)?;
        self.weights.compute.take(&tensor)
    }
}

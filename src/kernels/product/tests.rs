//! Products and convolutions beside their definitions.

use super::*;
use crate::Matrix;
use crate::definitions::{plain_conv, plain_linear};
use crate::half::{Halves, from_bf16, from_f16};
use crate::testing::{assert_close, numbers};

#[test]
fn a_product_is_its_definition_on_every_instruction_set() {
    for isa in Isa::all() {
        for (rows, input, output) in [(1, 1, 1), (7, 3, 4), (12, 130, 64), (13, 257, 80), (205, 64, 200), (6, 40, 48)] {
            let (x, weight) = (numbers(1, rows * input), numbers(2, output * input));
            let matrix = Matrix::linear(&weight, output, input);
            let (bias, shift, residual) = (numbers(3, output), numbers(4, output), numbers(5, rows * output));
            let mut expected = plain_linear(&x, &weight, output, input);
            let plain = product(isa, &Left::rows(&x, input), rows, 1, (&matrix).into(), Epilogue::default());
            assert_close(&plain, &expected, 1e-6);
            let epilogue = Epilogue { bias: Some(&bias), shift: Some(&shift), residual: Some(&residual) };
            for (index, number) in expected.iter_mut().enumerate() {
                let column = index % output;
                *number += f64::from(bias[column]) + f64::from(shift[column]) + f64::from(residual[index]);
            }
            let full = product(isa, &Left::rows(&x, input), rows, 1, (&matrix).into(), epilogue);
            assert_close(&full, &expected, 1e-6);
        }
    }
}

#[test]
fn a_convolution_is_its_definition_on_every_instruction_set() {
    let window =
        |kernel, stride, before, after| Window { batch: 2, height: 7, width: 5, kernel, stride, before, after };
    for isa in Isa::all() {
        for window in
            [window(3, 1, 1, 1), window(3, 2, 1, 1), window(3, 2, 0, 1), window(1, 1, 0, 0), window(5, 1, 2, 2)]
        {
            for (input, output) in [(3, 32), (20, 4), (64, 70)] {
                let x = numbers(1, 2 * 7 * 5 * input);
                let weight = numbers(2, output * input * window.kernel * window.kernel);
                let matrix = Matrix::conv(&weight, output, input, window.kernel);
                let zeros = vec![0.0; input];
                let (height, width) = window.output();
                let (bias, shift) = (numbers(4, output), numbers(3, 2 * output));
                let residual = numbers(5, 2 * height * width * output);
                let epilogue = Epilogue { bias: Some(&bias), shift: Some(&shift), residual: Some(&residual) };
                let left = Left::window(&x, &window, input, &zeros);
                let y = product(isa, &left, 2 * height * width, 2, (&matrix).into(), epilogue);
                let mut expected = plain_conv(&x, &window, &weight, output, input);
                for (index, number) in expected.iter_mut().enumerate() {
                    *number += f64::from(shift[index / (height * width * output) * output + index % output]);
                    *number += f64::from(bias[index % output]) + f64::from(residual[index]);
                }
                assert_close(&y, &expected, 3e-6);
                // By tiles, where that is the way.
                assert_close(&conv2d_on(isa, &x, &window, (&matrix).into(), epilogue), &expected, 3e-6);
            }
        }
    }
}

#[test]
fn a_convolution_by_tiles_is_its_definition() {
    let window = |height, width, before, after| Window { batch: 2, height, width, kernel: 3, stride: 1, before, after };
    for isa in Isa::all() {
        for (window, input, output) in [
            // Channels for more than one turn, more tiles than a task takes, odd sides, zeros on one side only.
            (window(13, 24, 1, 1), 208, 80),
            (window(9, 9, 0, 2), 16, 130),
            (window(8, 4, 2, 0), 96, 4),
            (window(11, 6, 0, 0), 112, 16),
        ] {
            let (x, weight) = (numbers(1, 2 * window.height * window.width * input), numbers(2, output * input * 9));
            let matrix = Matrix::conv(&weight, output, input, 3);
            assert!(winograd::suits(&window, &(&matrix).into()));
            let expected = plain_conv(&x, &window, &weight, output, input);
            let y = conv2d_on(isa, &x, &window, (&matrix).into(), Epilogue::default());
            assert_close(&y, &expected, 2e-6);
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (x, weight) = (numbers(1, 2 * 32 * 32 * 64), numbers(2, 128 * 64 * 9));
    let window = Window { batch: 2, height: 32, width: 32, kernel: 3, stride: 1, before: 1, after: 1 };
    let matrix = Matrix::conv(&weight, 128, 64, 3);
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| conv2d(&x, &window, &matrix, Epilogue::default()))
    };
    let one = run(1);
    assert!(run(2) == one && run(3) == one);
}

/// What is left of a number in bf16.
fn rounded(x: &[f32]) -> Vec<f32> {
    half::pairs(Isa::Portable, x, 1).iter().map(|x| f32::from_bits(x.to_bits() << 16)).collect()
}

#[test]
fn products_of_bf16_are_those_of_rounded_numbers() {
    for isa in Isa::all() {
        for (rows, input, output) in [(1, 1, 1), (7, 3, 4), (12, 130, 64), (13, 1257, 80), (205, 64, 200)] {
            let (x, weight) = (numbers(1, rows * input), numbers(2, output * input));
            let read = |start: usize, out: &mut [f32]| out.copy_from_slice(&weight[start..start + out.len()]);
            let matrix = Matrix::read(output, input, 1, Precision::Bf16, &read);
            let residual = numbers(5, rows * output);
            let mut expected = plain_linear(&rounded(&x), &rounded(&weight), output, input);
            expected.iter_mut().zip(&residual).for_each(|(sum, more)| *sum += f64::from(*more));
            let epilogue = Epilogue { residual: Some(&residual), ..Epilogue::default() };
            assert_close(&linear_on(isa, &x, 1, (&matrix).into(), epilogue), &expected, 2e-6);
        }
        let window = Window { batch: 2, height: 7, width: 5, kernel: 3, stride: 2, before: 1, after: 1 };
        for (input, output) in [(3, 32), (21, 4), (64, 70), (470, 16)] {
            let (x, weight) = (numbers(1, 2 * 7 * 5 * input), numbers(2, output * input * 9));
            let read = |start: usize, out: &mut [f32]| out.copy_from_slice(&weight[start..start + out.len()]);
            let matrix = Matrix::read(output, input, 3, Precision::Bf16, &read);
            let expected = plain_conv(&rounded(&x), &window, &rounded(&weight), output, input);
            assert_close(&conv2d_on(isa, &x, &window, (&matrix).into(), Epilogue::default()), &expected, 3e-6);
        }
    }
}

/// Weights of 16 bits, and the f32 that they are.
fn narrow(halves: Halves, count: usize) -> (Vec<u16>, Vec<f32>) {
    // Finite numbers of either type, tiny ones among them.
    let bits: Vec<u16> = (0..count as u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 16) as u16 & 0xbbff).collect();
    let widened = bits.iter().map(|&bits| match halves {
        Halves::F16 => from_f16(bits),
        Halves::Bf16 => from_bf16(bits),
    });
    let widened = widened.collect();
    (bits, widened)
}

#[test]
fn numbers_of_sixteen_bits_give_what_their_f32_gives() {
    let window = Window { batch: 2, height: 7, width: 5, kernel: 3, stride: 1, before: 1, after: 1 };
    for isa in Isa::all() {
        for halves in [Halves::F16, Halves::Bf16] {
            for (rows, input, output) in [(1, 1, 1), (7, 3, 4), (13, 1257, 80), (205, 64, 200)] {
                let (bits, widened) = narrow(halves, output * input);
                let read = |start: usize, out: &mut [u16]| out.copy_from_slice(&bits[start..start + out.len()]);
                let matrix = Matrix::read_halves(output, input, 1, halves, &read);
                let (x, whole) = (numbers(1, rows * input), Matrix::linear(&widened, output, input));
                let run = |right| linear_on(isa, &x, 1, right, Epilogue::default());
                assert!(run((&matrix).into()) == run((&whole).into()), "{isa:?} {halves:?} {rows} {input} {output}");
                assert!(2 * matrix.bytes() == whole.bytes());
            }
            for (input, output) in [(3, 32), (21, 4), (64, 70)] {
                let (bits, widened) = narrow(halves, output * input * 9);
                let read = |start: usize, out: &mut [u16]| out.copy_from_slice(&bits[start..start + out.len()]);
                let matrix = Matrix::read_halves(output, input, 3, halves, &read);
                let (x, whole) = (numbers(1, 2 * 7 * 5 * input), Matrix::conv(&widened, output, input, 3));
                let run = |right| conv2d_on(isa, &x, &window, right, Epilogue::default());
                assert!(run((&matrix).into()) == run((&whole).into()), "{isa:?} {halves:?} {input} {output}");
            }
        }
    }
}

#[test]
fn a_turned_matrix_is_the_one_packed_for_the_way_back() {
    let window = Window { batch: 2, height: 7, width: 5, kernel: 3, stride: 1, before: 1, after: 1 };
    for isa in Isa::all() {
        for (rows, input, output) in [(1, 1, 1), (7, 3, 4), (13, 80, 1257), (205, 200, 72), (6, 40, 48)] {
            let (g, (bits, weight)) = (numbers(1, rows * output), narrow(Halves::F16, output * input));
            let read = |start: usize, out: &mut [u16]| out.copy_from_slice(&bits[start..start + out.len()]);
            let (forth, back) = (Matrix::linear(&weight, output, input), Matrix::linear_back(&weight, output, input));
            let halves = Matrix::read_halves(output, input, 1, Halves::F16, &read);
            let run = |right| linear_on(isa, &g, 1, right, Epilogue::default());
            let expected = run((&back).into());
            assert!(run(forth.turned().into()) == expected && run(halves.turned().into()) == expected, "{isa:?}");
        }
        for (input, output) in [(3, 32), (21, 4), (64, 70), (80, 200)] {
            let (g, (bits, weight)) = (numbers(1, 2 * 7 * 5 * output), narrow(Halves::F16, output * input * 9));
            let read = |start: usize, out: &mut [u16]| out.copy_from_slice(&bits[start..start + out.len()]);
            let (forth, back) = (Matrix::conv(&weight, output, input, 3), Matrix::conv_back(&weight, output, input, 3));
            let halves = Matrix::read_halves(output, input, 3, Halves::F16, &read);
            let run = |right| conv2d_on(isa, &g, &window, right, Epilogue::default());
            let expected = run((&back).into());
            assert!(run(forth.turned().into()) == expected && run(halves.turned().into()) == expected, "{isa:?}");
        }
    }
}

#[test]
fn nothing_in_gives_nothing_out() {
    let matrix = Matrix::linear(&numbers(1, 12), 4, 3);
    assert_eq!(linear(&[], 1, &matrix, Epilogue::default()), [] as [f32; 0]);
}

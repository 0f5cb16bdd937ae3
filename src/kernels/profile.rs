//! What each kernel's calls cost, for who asks. Nothing is measured otherwise; a call then reads one flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::matrix::{Matrix, Precision};
use crate::product::{Epilogue, linear};

/// What all calls of one kernel came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Spent {
    /// The kernel, and its kind where it has several.
    pub kernel: &'static str,
    /// How often it was called.
    pub calls: usize,
    /// From each call to its return, added up.
    pub time: Duration,
    /// Floating-point operations by the definition of what is computed, however it is done; none for what moves memory.
    pub operations: f64,
    /// Bytes that go in and come out.
    pub bytes: f64,
}

static MEASURING: AtomicBool = AtomicBool::new(false);
static SPENT: Mutex<Vec<Spent>> = Mutex::new(Vec::new());

/// Does the work and tells what the kernels spent in it, the costliest first. Kernels that other threads call meanwhile are
/// counted too.
pub fn profiled<T>(work: impl FnOnce() -> T) -> (T, Vec<Spent>) {
    let take = || std::mem::take(&mut *SPENT.lock().unwrap_or_else(PoisonError::into_inner));
    take();
    MEASURING.store(true, Ordering::Relaxed);
    let result = work();
    MEASURING.store(false, Ordering::Relaxed);
    let mut spent = take();
    spent.sort_by_key(|spent| std::cmp::Reverse(spent.time));
    (result, spent)
}

/// Floating-point operations a second of products whose factors stay in the cache, all threads together: what any larger product
/// can reach at best.
#[must_use]
pub fn peak(precision: Precision) -> f64 {
    /// Small enough for one thread, deep enough that the sums hardly count.
    const ROWS: usize = 48;
    const DEPTH: usize = 512;
    const COLUMNS: usize = 64;
    const ROUNDS: usize = 200;
    let (x, weight) = (vec![1.0; ROWS * DEPTH], vec![1.0; COLUMNS * DEPTH]);
    let read = |start: usize, out: &mut [f32]| out.copy_from_slice(&weight[start..start + out.len()]);
    let matrix = Matrix::read(COLUMNS, DEPTH, 1, precision, &read);
    let round = |_: rayon::BroadcastContext<'_>| {
        for _ in 0..ROUNDS {
            std::hint::black_box(linear(&x, 1, &matrix, Epilogue::default()));
        }
    };
    let operations = (2 * ROWS * DEPTH * COLUMNS * ROUNDS * rayon::current_num_threads()) as f64;
    let tries = (0..5).map(|_| {
        let begun = Instant::now();
        rayon::broadcast(round);
        operations / begun.elapsed().as_secs_f64()
    });
    tries.fold(0.0, f64::max)
}

/// A call of a kernel, measured until it is dropped.
pub(crate) struct Call {
    begun: Option<Instant>,
    kernel: &'static str,
    operations: usize,
    numbers: usize,
}

/// Begins to measure a call: the operations that it is, and the numbers of f32 that go in and come out.
pub(crate) fn call(kernel: &'static str, operations: usize, numbers: usize) -> Call {
    let begun = MEASURING.load(Ordering::Relaxed).then(Instant::now);
    Call { begun, kernel, operations, numbers }
}

impl Drop for Call {
    fn drop(&mut self) {
        let Some(begun) = self.begun else { return };
        let (time, operations, bytes) = (begun.elapsed(), self.operations as f64, 4.0 * self.numbers as f64);
        let mut all = SPENT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spent) = all.iter_mut().find(|spent| spent.kernel == self.kernel) {
            spent.calls += 1;
            spent.time += time;
            spent.operations += operations;
            spent.bytes += bytes;
        } else {
            all.push(Spent { kernel: self.kernel, calls: 1, time, operations, bytes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::silu;

    #[test]
    fn calls_are_added_up_by_kernel_while_somebody_asks() {
        let matrix = Matrix::linear(&[1.0; 12], 4, 3);
        let _ = linear(&[1.0; 6], 1, &matrix, Epilogue::default());
        let (rows, spent) = profiled(|| {
            let _ = silu(&[1.0; 5]);
            (0..3).map(|_| linear(&[1.0; 6], 1, &matrix, Epilogue::default()).len()).sum::<usize>()
        });
        assert_eq!(rows, 24);
        // Other tests may call kernels meanwhile, so there may be more than these.
        let of = |kernel| spent.iter().find(|spent| spent.kernel == kernel).unwrap();
        assert!(of("linear").calls >= 3 && of("linear").operations >= 3.0 * 2.0 * 2.0 * 12.0);
        assert!(of("activation").bytes >= 40.0);
        assert!(spent.is_sorted_by(|a, b| a.time >= b.time));
    }
}

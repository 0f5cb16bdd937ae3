//! When to share work among threads. What is shared is the output: no sum is ever split, so results do not depend on how
//! many threads there are.

use rayon::prelude::*;

/// Floating-point operations below which waking a thread costs more than it saves: about 50 microseconds' worth.
const WORTH_SHARING: usize = 4_000_000;

/// Whether so many operations are worth more than one thread.
pub(crate) fn worth_it(operations: usize) -> bool {
    operations >= WORTH_SHARING && rayon::current_num_threads() > 1
}

/// Runs `task` for every number below `tasks`, on several threads if the whole is worth it.
pub(crate) fn for_each(tasks: usize, operations: usize, task: impl Fn(usize) + Sync + Send) {
    if tasks > 1 && worth_it(operations) {
        (0..tasks).into_par_iter().with_max_len(1).for_each(task);
    } else {
        (0..tasks).for_each(task);
    }
}

/// Splits a slice into chunks and runs `task` on each, on several threads if the whole is worth it.
pub(crate) fn chunks<T: Send>(
    out: &mut [T],
    chunk: usize,
    operations: usize,
    task: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    if out.len() > chunk && worth_it(operations) {
        out.par_chunks_mut(chunk).enumerate().for_each(|(index, out)| task(index, out));
    } else {
        out.chunks_mut(chunk).enumerate().for_each(|(index, out)| task(index, out));
    }
}

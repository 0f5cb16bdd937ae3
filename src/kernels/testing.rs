//! What the kernels' tests share.

/// Numbers in [-1, 1), others for each seed.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let draw = |index: u64| {
        let z = (seed << 32).wrapping_add((index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 40) as f64 * 2f64.powi(-23) - 1.0) as f32
    };
    (0..count as u64).map(draw).collect()
}

/// Checks that two lists differ by no more than that part of the second one's greatest number.
pub(crate) fn assert_close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let greatest = expected.iter().fold(0.0, |greatest: f64, number| greatest.max(number.abs()));
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        assert!(difference <= tolerance * greatest, "at {index}: {found} for {expected}, greatest {greatest}");
    }
}

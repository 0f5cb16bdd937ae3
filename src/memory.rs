//! Where tensors live.

use std::ffi::{c_int, c_long};

/// Keeps freed pages for the next tensor: fresh ones cost a third of a denoising step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// mimalloc's number for how long it keeps freed pages, in milliseconds.
const PURGE_DELAY: c_int = 15;
/// Longer than any step takes, so that a step's pages are still there for the next one; its own second is not.
const KEPT: c_long = 10_000;

#[expect(unsafe_code, reason = "mimalloc's settings have no other door once the process runs")]
mod door {
    use super::{c_int, c_long};

    // SAFETY: the signature is that of mimalloc.h, version 3, which is linked in with the allocator above. The function takes
    // any number, ignores options that it does not know, and leaves what the environment has set.
    unsafe extern "C" {
        pub(super) safe fn mi_option_set_default(option: c_int, value: c_long);
        #[cfg(test)]
        pub(super) safe fn mi_option_get(option: c_int) -> c_long;
    }
}

/// Makes freed pages stay for ten seconds. `MIMALLOC_PURGE_DELAY` in the environment goes before.
pub(crate) fn keep_pages() {
    door::mi_option_set_default(PURGE_DELAY, KEPT);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_as_long_as_asked() {
        keep_pages();
        let expected = std::env::var("MIMALLOC_PURGE_DELAY").ok().and_then(|delay| delay.parse().ok()).unwrap_or(KEPT);
        assert_eq!(door::mi_option_get(PURGE_DELAY), expected);
    }
}

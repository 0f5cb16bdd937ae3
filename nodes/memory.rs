//! How much memory the work may take, so that a picture too large for the machine is refused before it is begun.

use crate::error::Error;
use paraflow_engine::Services;
use sysinfo::{MemoryRefreshKind, System};

/// The memory that nodes may use. A service; without it, what the system has to spare.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    /// The most that one piece of work may take, in bytes; `None`: what the system has to spare at that moment.
    pub limit_bytes: Option<u64>,
}

impl Memory {
    /// The memory that services grant.
    pub(crate) fn of(services: &Services) -> Self {
        services.get::<Self>().copied().unwrap_or_default()
    }

    /// How many bytes there are.
    pub(crate) fn available(self) -> u64 {
        self.limit_bytes.unwrap_or_else(available_bytes)
    }

    /// Refuses `work` if it needs more than there is.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub(crate) fn require(self, needed_bytes: u64, work: impl FnOnce() -> String) -> Result<(), Error> {
        /// What never is worth asking the system about.
        const SMALL_BYTES: u64 = 64 << 20;
        if self.limit_bytes.is_none() && needed_bytes <= SMALL_BYTES {
            return Ok(());
        }
        let available_bytes = self.available();
        if needed_bytes > available_bytes {
            return Err(Error::TooLarge { work: work(), needed_bytes, available_bytes });
        }
        Ok(())
    }
}

/// What the system, or the container that we run in, can give without swapping. All there is, where it does not tell.
fn available_bytes() -> u64 {
    let Ok(mut system) = System::new() else { return u64::MAX };
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let of_system = if system.total_memory() == 0 { u64::MAX } else { system.available_memory() };
    let of_container = system.cgroup_limits().map_or(u64::MAX, |limits| limits.free_memory);
    of_system.min(of_container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_numbers() {
        let memory = Memory { limit_bytes: Some(1 << 30) };
        assert!(memory.require(1 << 30, || unreachable!()).is_ok());
        let error = memory.require(3 << 30, || "decoding 9 x 9 pixels".to_owned()).unwrap_err();
        assert_eq!(error.to_string(), "decoding 9 x 9 pixels needs about 3.0 GiB of memory, and 1.0 GiB are free");
    }

    #[test]
    fn the_system_has_memory_but_not_without_end() {
        assert!(Memory::default().require(65 << 20, String::new).is_ok());
        assert!(Memory::default().require(1 << 60, String::new).is_err());
    }
}

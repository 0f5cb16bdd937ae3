//! The environment, as far as other libraries take their settings from it and from nowhere else.

use std::env;

/// Sets a variable of the environment for the libraries that the process uses, unless whoever started it has set the variable
/// already. Whether it stands as asked afterwards.
///
/// Nothing is changed where another thread might be reading the environment: on Unix the process must have this one thread
/// only, which is known on Linux alone. So call it first thing in `main`.
pub fn set_variable(name: &str, value: &str) -> bool {
    if env::var_os(name).is_none() && is_alone() {
        // SAFETY: no other thread exists that could read the environment meanwhile, and none is started between the look
        // and the change; on Windows the system itself guards the environment.
        unsafe { env::set_var(name, value) };
    }
    env::var_os(name).is_some_and(|found| found == value)
}

/// Whether changing the environment can disturb nobody.
fn is_alone() -> bool {
    if cfg!(target_os = "linux") {
        std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
    } else {
        cfg!(windows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_stays_and_threads_forbid_a_change() {
        // The tests' own threads make this process one of several.
        let path = env::var("PATH").unwrap();
        assert!(set_variable("PATH", &path));
        assert!(!set_variable("PATH", "elsewhere") && env::var("PATH").unwrap() == path);
        if cfg!(target_os = "linux") {
            let changed = std::thread::spawn(|| set_variable("PARAFLOW_NOWHERE_SET", "1")).join().unwrap();
            assert!(!changed && env::var_os("PARAFLOW_NOWHERE_SET").is_none());
        }
    }
}

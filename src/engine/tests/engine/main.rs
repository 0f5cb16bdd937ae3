//! The engine by its events, over nodes that add numbers: each test says what ran, and so what did not.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

mod cache;
mod cancel;
mod declare;
mod deep;
mod dynamic;
mod faults;
mod lists;
mod parallel;
mod property;
mod run;
mod toys;

//! Graph files, read as a user's are: whole files in, prompts and messages out.
//!
//! `tests/workflows/` holds the conversion's rules as small files: a workflow of the editor (`*.ui.json`) beside the
//! prompt that it runs as (`*.api.json`), and broken files (`faults/*.json`) beside what is said about them.

#![expect(clippy::unwrap_used, reason = "a test that unwraps says where it failed")]

mod body;
mod properties;
mod set;
mod stock;
mod workflows;

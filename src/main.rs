//! The paraflow command.

fn main() {}

//! The `lantern` program.

fn main() {}

//! Captures of real programs: what is recorded, what is refused, and that nothing of the program changes.

#![allow(clippy::unwrap_used, missing_docs)] // tests fail by panicking
mod harmless;
mod objects;
mod obstacles;
mod speed;
mod world;

//! Descriptors of real processes: captured, restored, captured again; and everything that is refused, by name.
//!
//! The processes are puppets that make a list of system calls and wait. They stand in a cgroup of the test's own, which is frozen,
//! and are traced while they are captured. This needs root.
#![allow(clippy::unwrap_used)]

mod fanotify;
mod inotify;
mod obstacles;
mod refusals;
mod round_trip;
mod survey;
mod world;

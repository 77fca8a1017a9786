//! How long the parts of a job took, one after the other.

use crate::registry::Timing;
use std::time::Instant;

/// The parts so far.
pub(super) struct Laps {
    last: Instant,
    pub(super) timings: Vec<Timing>,
}

impl Laps {
    pub(super) fn start() -> Self {
        Laps { last: Instant::now(), timings: Vec::new() }
    }

    /// Ends the part that has run since the last one ended. One that comes again is added up.
    pub(super) fn lap(&mut self, what: &str) {
        let now = Instant::now();
        let us = u64::try_from((now - self.last).as_micros()).unwrap_or(u64::MAX);
        match self.timings.iter_mut().find(|timing| timing.what == what) {
            Some(timing) => timing.us += us,
            None => self.timings.push(Timing { what: what.to_owned(), us }),
        }
        self.last = now;
    }
}

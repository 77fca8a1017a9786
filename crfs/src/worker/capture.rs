//! Captures.
use super::Report;
use crate::registry::Registry;

/// Runs the job.
pub(super) fn run(_registry: &Registry, _name: &str, _deadline_ms: u64, _inspect: bool) -> Report {
    Report::default()
}

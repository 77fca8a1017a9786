//! Captures the armed interval timers of a process.

use super::super::container::Moment;
use super::super::kernel::Kernel;
use crate::failure::Failure;
use image_format::Timespec;
use image_format::thread::{IntervalTimer, IntervalTimerKind};

/// Reads them through the process's leader. `object` is the leader's directory.
///
/// # Errors
/// When the process is gone.
pub fn capture(host: i32, object: &str, kernel: &mut Kernel, moment: &Moment) -> Result<Vec<IntervalTimer>, Failure> {
    let Some(timers) = kernel.ask(host, &format!("{object}/timers"), |state, task| state.itimers(task))? else {
        return Ok(Vec::new());
    };
    let kinds = [IntervalTimerKind::ITIMER_REAL, IntervalTimerKind::ITIMER_VIRTUAL, IntervalTimerKind::ITIMER_PROF];
    let mut records = Vec::new();
    for (which, timer) in kinds.into_iter().zip(timers) {
        let mut remaining = i128::from(timer.remaining_ns);
        if let Some(expires) = timer.expires_ns {
            // A microsecond at least: zero would disarm it.
            remaining = (i128::from(expires) - i128::from(moment.monotonic_ns)).max(1000);
        }
        if remaining == 0 && which == IntervalTimerKind::ITIMER_REAL {
            remaining = i128::from(timer.interval_ns);
        }
        if remaining > 0 {
            let interval = Timespec::from_ns(i128::from(timer.interval_ns));
            records.push(IntervalTimer { which, remaining: Timespec::from_ns(remaining), interval });
        }
    }
    Ok(records)
}

//! Captures the armed interval timers of a process.

use super::super::container::Moment;
use super::super::kernel::Kernel;
use crate::failure::Failure;
use image_format::Timespec;
use image_format::timer::{IntervalTimer, IntervalTimerKind};

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
            let left = i128::from(expires) - i128::from(moment.monotonic_ns);
            let waits = timer.remaining_ns == 0;
            // One that has fired is armed again, in phase, when its signal is taken. A microsecond at least: zero would disarm it.
            remaining = if waits { next_end(left, timer.interval_ns.into()) } else { left }.max(1000);
        }
        if remaining > 0 {
            let interval = Timespec::from_ns(i128::from(timer.interval_ns));
            records.push(IntervalTimer { which, remaining: Timespec::from_ns(remaining), interval });
        }
    }
    Ok(records)
}

/// What remains of a period when its end may lie behind: until the next one ends.
pub(in crate::resource) fn next_end(left: i128, interval: i128) -> i128 {
    if left > 0 { left } else { interval - (-left) % interval }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_period_that_ended_goes_on_in_phase() {
        assert_eq!([(3, 10), (0, 10), (-4, 10), (-10, 10), (-27, 10)].map(|(l, i)| next_end(l, i)), [3, 10, 6, 10, 3]);
    }
}

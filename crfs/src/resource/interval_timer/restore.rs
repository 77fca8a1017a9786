//! Interval timers, armed with what remained.

use crfs_tracee::Batch;
use image_format::Timespec;
use image_format::timer::{IntervalTimer, IntervalTimerKind};

/// The calls that arm the timers of a process.
pub fn arm(batch: &mut Batch, timers: &[&IntervalTimer]) {
    for timer in timers {
        let which: u64 = match timer.which {
            IntervalTimerKind::ITIMER_REAL => 0,
            IntervalTimerKind::ITIMER_VIRTUAL => 1,
            IntervalTimerKind::ITIMER_PROF => 2,
        };
        let mut value = Vec::with_capacity(32);
        // A timer about to fire must not become one that is off.
        let remaining = Timespec::from_ns(timer.remaining.ns().max(1_000));
        for time in [timer.interval, remaining] {
            value.extend_from_slice(&time.sec.to_ne_bytes());
            value.extend_from_slice(&i64::from(time.nsec.div_ceil(1000)).to_ne_bytes());
        }
        let value = batch.data(&value);
        batch.call(libc::SYS_setitimer, &[which.into(), value.into(), 0u64.into()], "setitimer");
    }
}

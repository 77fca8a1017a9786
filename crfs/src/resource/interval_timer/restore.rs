//! Interval timers, armed with what remained.

use crfs_tracee::Batch;
use image_format::Timespec;
use image_format::timer::{IntervalTimer, IntervalTimerKind};

/// Whether it runs on while its process stands still.
#[must_use]
pub fn counts_time(timer: &IntervalTimer) -> bool {
    timer.which == IntervalTimerKind::ITIMER_REAL
}

fn number(which: IntervalTimerKind) -> u64 {
    match which {
        IntervalTimerKind::ITIMER_REAL => 0,
        IntervalTimerKind::ITIMER_VIRTUAL => 1,
        IntervalTimerKind::ITIMER_PROF => 2,
    }
}

/// The call that stops a timer.
pub fn disarm(batch: &mut Batch, which: IntervalTimerKind) {
    let value = batch.data(&[0; 32]);
    batch.call(libc::SYS_setitimer, &[number(which).into(), value.into(), 0u64.into()], "setitimer");
}

/// The calls that arm the timers of a process.
pub fn arm(batch: &mut Batch, timers: &[&IntervalTimer]) {
    for timer in timers {
        let mut value = Vec::with_capacity(32);
        // A timer about to fire must not become one that is off.
        let remaining = Timespec::from_ns(timer.remaining.ns().max(1_000));
        for time in [timer.interval, remaining] {
            value.extend_from_slice(&time.sec.to_ne_bytes());
            value.extend_from_slice(&i64::from(time.nsec.div_ceil(1000)).to_ne_bytes());
        }
        let value = batch.data(&value);
        batch.call(libc::SYS_setitimer, &[number(timer.which).into(), value.into(), 0u64.into()], "setitimer");
    }
}

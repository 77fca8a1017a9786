//! Timers made again with their ids, and armed with what remained.

use crate::failure::Failure;
use crfs_tracee::Batch;
use image_format::manifest::Clocks;
use image_format::signal::{PendingSignal, Signal};
use image_format::timer::{Notify, PosixTimer, TimerClock, TimerState};
use image_format::{Pid, Timespec};

/// linux/prctl.h, since Linux 6.16.
const PR_TIMER_CREATE_RESTORE_IDS: u64 = 77;
/// `CPUCLOCK_SCHED | CPUCLOCK_PERTHREAD_MASK` of `include/linux/posix-timers.h`.
const THREAD_TIME: i32 = 6;
const SIGSET_SIZE: u64 = 8;
/// Until a timer set to the past has sent its signal: at once, on a machine that is not busy.
const FIRED: Timespec = Timespec { sec: 10, nsec: 0 };

/// The timer that a queued signal comes from, by its id.
#[must_use]
pub fn sender(signal: &PendingSignal) -> Option<u32> {
    // si_tid, after si_signo, si_errno and si_code.
    let id = signal.siginfo.0.get(16..20)?.try_into().ok().map(u32::from_ne_bytes)?;
    (signal.code == libc::SI_TIMER).then_some(id)
}

/// Whether a queued signal is left out of an image, since the timer that sent it has yet to expire in it.
#[must_use]
pub fn sends_yet(timers: &[PosixTimer], signal: &PendingSignal) -> bool {
    let running = |timer: &PosixTimer| matches!(timer.state, TimerState::Remaining(_));
    sender(signal).is_some_and(|id| timers.iter().any(|timer| timer.id == id && running(timer)))
}

/// Whether a queued signal is left out of what is restored, since the timer that sent it sends it again.
#[must_use]
pub fn sends_again(timers: &[&PosixTimer], signal: &PendingSignal) -> bool {
    let expired = |timer: &&PosixTimer| matches!(timer.state, TimerState::Expired(_));
    sender(signal).is_some_and(|id| timers.iter().any(|timer| timer.id == id && expired(timer)))
}

/// The calls that make the timers and arm those that have not expired, for the process's leader, while its queues are empty. `seen` tells
/// what the process calls a thread of it.
///
/// # Errors
/// Those of `seen`.
pub fn create(
    batch: &mut Batch,
    timers: &[&PosixTimer],
    leader: Pid,
    seen: impl Fn(Pid) -> Result<Pid, Failure>,
    clocks: &Clocks,
) -> Result<(), Failure> {
    if timers.is_empty() {
        return Ok(());
    }
    restore_ids(batch, true);
    for timer in timers {
        let (how, signal, thread) = match timer.notify {
            Notify::SIGEV_SIGNAL(signal) => (libc::SIGEV_SIGNAL, signal, 0),
            Notify::SIGEV_NONE => (libc::SIGEV_NONE, Signal(0), 0),
            Notify::SIGEV_THREAD(signal) => (libc::SIGEV_THREAD, signal, 0),
            Notify::SIGEV_THREAD_ID(to) => (libc::SIGEV_THREAD_ID, to.signal, seen(to.thread)?.0),
        };
        let mut event = timer.value.0.to_ne_bytes().to_vec();
        for word in [u32::from(signal.0), how.cast_unsigned(), thread] {
            event.extend_from_slice(&word.to_ne_bytes());
        }
        event.resize(64, 0);
        let (event, id) = (batch.data(&event), batch.data(&timer.id.to_ne_bytes()));
        let clock = match timer.clock {
            TimerClock::CLOCK_THREAD_CPUTIME_ID(thread) => TimerClock::CLOCK_THREAD_CPUTIME_ID(seen(thread)?),
            clock => clock,
        };
        let clock = i64::from(number(clock)).cast_unsigned();
        batch.call(libc::SYS_timer_create, &[clock.into(), event.into(), id.into()], "timer_create");
    }
    restore_ids(batch, false);
    for timer in timers {
        if timer.overrun > 0 {
            overrun(batch, timer, leader, clocks);
        } else if let TimerState::Remaining(_) = timer.state {
            arm(batch, timer, clocks);
        }
    }
    Ok(())
}

fn restore_ids(batch: &mut Batch, on: bool) {
    let args = [PR_TIMER_CREATE_RESTORE_IDS.into(), u64::from(on).into()];
    batch.call(libc::SYS_prctl, &args, "prctl(PR_TIMER_CREATE_RESTORE_IDS)");
}

/// The clock as timer_create(2) takes it.
fn number(clock: TimerClock) -> i32 {
    match clock {
        TimerClock::CLOCK_REALTIME => libc::CLOCK_REALTIME,
        TimerClock::CLOCK_MONOTONIC => libc::CLOCK_MONOTONIC,
        TimerClock::CLOCK_BOOTTIME => libc::CLOCK_BOOTTIME,
        TimerClock::CLOCK_TAI => libc::CLOCK_TAI,
        TimerClock::CLOCK_PROCESS_CPUTIME_ID => libc::CLOCK_PROCESS_CPUTIME_ID,
        TimerClock::CLOCK_THREAD_CPUTIME_ID(thread) => !thread.0.cast_signed() << 3 | THREAD_TIME,
    }
}

/// What the timer's clock showed at the freeze, inside; None for clocks that begin anew, and for one that was set to a length of
/// time, which counts on another clock than its own.
fn clock_at_freeze(timer: &PosixTimer, clocks: &Clocks) -> Option<i128> {
    match timer.clock {
        TimerClock::CLOCK_MONOTONIC => Some(clocks.monotonic.ns()),
        TimerClock::CLOCK_BOOTTIME => Some(clocks.boottime.ns()),
        TimerClock::CLOCK_REALTIME if timer.absolute => Some(clocks.realtime.ns()),
        _ => None,
    }
}

/// Arms a timer with what remained, a wall-clock time by its date.
fn arm(batch: &mut Batch, timer: &PosixTimer, clocks: &Clocks) {
    let TimerState::Remaining(remaining) = timer.state else { return };
    match clock_at_freeze(timer, clocks) {
        Some(then) if timer.absolute => set(batch, timer, Some(then + remaining.ns())),
        _ => set(batch, timer, None),
    }
}

/// timer_settime: to a time of its clock, or to what remained.
fn set(batch: &mut Batch, timer: &PosixTimer, at_ns: Option<i128>) {
    let remaining = match timer.state {
        TimerState::Remaining(remaining) => remaining.ns(),
        TimerState::Expired(_) | TimerState::Disarmed => 1,
    };
    // Nothing would disarm it.
    let value = Timespec::from_ns(at_ns.unwrap_or(remaining).max(1));
    let flags = if at_ns.is_some() { libc::TIMER_ABSTIME } else { 0 };
    let value = batch.data(&[timespec(timer.interval), timespec(value)].concat());
    let args = [u64::from(timer.id).into(), u64::from(flags.unsigned_abs()).into(), value.into(), 0u64.into()];
    batch.call(libc::SYS_timer_settime, &args, "timer_settime");
}

fn timespec(time: Timespec) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&time.sec.to_ne_bytes());
    bytes[8..].copy_from_slice(&i64::from(time.nsec).to_ne_bytes());
    bytes
}

/// Arms a timer that has an overrun: timer_settime clears it, and only an expiration makes one. So the timer is set to so many
/// periods before its next one, expires at once, and its signal is taken.
fn overrun(batch: &mut Batch, timer: &PosixTimer, leader: Pid, clocks: &Clocks) {
    let signal = match timer.notify {
        Notify::SIGEV_SIGNAL(signal) | Notify::SIGEV_THREAD(signal) => Some(signal),
        // Only the thread itself could take it.
        Notify::SIGEV_THREAD_ID(to) => Some(to.signal).filter(|_| to.thread == leader),
        Notify::SIGEV_NONE => None,
    };
    let first = match (timer.state, clock_at_freeze(timer, clocks)) {
        (TimerState::Remaining(remaining), Some(then)) => {
            then + remaining.ns() - (i128::from(timer.overrun) + 1) * timer.interval.ns()
        }
        _ => 0,
    };
    let (Some(signal), true) = (signal, first > 0 && timer.interval != Timespec::default()) else {
        return arm(batch, timer, clocks);
    };
    set(batch, timer, Some(first));
    let set = batch.data(&(1u64 << (signal.0 - 1)).to_ne_bytes());
    let patience = batch.data(&timespec(FIRED));
    let args = [set.into(), 0u64.into(), patience.into(), SIGSET_SIZE.into()];
    batch.call(libc::SYS_rt_sigtimedwait, &args, "rt_sigtimedwait for a timer's signal");
}

/// Whether it runs, and was set to a length of time that passes while its process stands still.
#[must_use]
pub fn counts_time(timer: &PosixTimer) -> bool {
    let clock = match timer.clock {
        TimerClock::CLOCK_MONOTONIC | TimerClock::CLOCK_BOOTTIME => true,
        TimerClock::CLOCK_REALTIME | TimerClock::CLOCK_TAI => !timer.absolute,
        TimerClock::CLOCK_PROCESS_CPUTIME_ID | TimerClock::CLOCK_THREAD_CPUTIME_ID(_) => false,
    };
    clock && timer.state != TimerState::Disarmed
}

/// The calls that set timers which have run since the build to what the image says, as if that were now. `queued` tells of which
/// signals others wait to be taken: then the overrun told last is 0, since who takes one cannot choose.
pub fn set_again(
    batch: &mut Batch,
    timers: &[PosixTimer],
    leader: Pid,
    now: &Clocks,
    queued: &impl Fn(Signal) -> bool,
) {
    for timer in timers {
        let signal = match timer.notify {
            Notify::SIGEV_SIGNAL(signal) | Notify::SIGEV_THREAD(signal) => Some(signal),
            Notify::SIGEV_THREAD_ID(to) => Some(to.signal),
            Notify::SIGEV_NONE => None,
        };
        match timer.state {
            TimerState::Remaining(_) if timer.overrun > 0 && !signal.is_some_and(queued) => {
                overrun(batch, timer, leader, now);
            }
            TimerState::Remaining(_) => arm(batch, timer, now),
            TimerState::Expired(_) => expire(batch, &[timer], now),
            TimerState::Disarmed => {}
        }
    }
}

/// The calls that let the timers expire again whose signals were not taken.
pub fn expire(batch: &mut Batch, timers: &[&PosixTimer], clocks: &Clocks) {
    for timer in timers {
        if let TimerState::Expired(ago) = timer.state {
            set(batch, timer, clock_at_freeze(timer, clocks).map(|then| then - ago.ns()));
        }
    }
}

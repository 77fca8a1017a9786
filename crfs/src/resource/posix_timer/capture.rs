//! Captures the timers of a process.

use super::super::Findings;
use super::super::container::Moment;
use super::super::interval_timer::next_end;
use super::super::kernel::Kernel;
use super::super::proc::Proc;
use super::super::subject::{Process, Subjects};
use super::listing::{Listed, Way, parse};
use super::restore::sender;
use crate::failure::{Doing, Failure, Kind};
use crfs_kstate::{Expiry, PosixTimer as Kept, PosixTimerStatus};
use image_format::signal::{PendingSignal, Signal};
use image_format::timer::{Notify, NotifyThread, PosixTimer, TimerClock, TimerState};
use image_format::{Pid, Timespec, layout};
use std::collections::BTreeMap;

/// `CPUCLOCK_SCHED` with and without `CPUCLOCK_PERTHREAD_MASK`, in the low bits of a processor clock (`include/linux/posix-timers.h`).
const PROCESS_TIME: i32 = 2;
const THREAD_TIME: i32 = 6;
const KIND_MASK: i32 = 7;

/// Obstacles that /proc tells, of a running process too.
///
/// # Errors
/// When the process is gone.
pub fn survey(process: &Process, proc: &mut Proc, findings: &mut Findings) -> Result<(), Failure> {
    for timer in list(process, proc)? {
        let known = matches!(timer.clock, 0 | 1 | 7 | 11)
            || (timer.clock < 0 && matches!(timer.clock & KIND_MASK, PROCESS_TIME | THREAD_TIME));
        if !known {
            findings.block(
                file(process),
                format!("has a POSIX timer (id {}) on clock {}, which is not carried yet", timer.id, timer.clock),
                "Use CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_TAI or the whole processor time",
            );
        }
    }
    Ok(())
}

fn file(process: &Process) -> String {
    layout::thread_file(process.pid, process.alive().tid, "timers")
}

fn list(process: &Process, proc: &mut Proc) -> Result<Vec<Listed>, Failure> {
    let text = proc.text(format_args!("{}/timers", process.host))?;
    let malformed = || format!("{}: /proc/{}/timers is malformed", file(process), process.host);
    parse(text).ok_or_else(|| Failure::new(Kind::Unsupported, malformed()))
}

/// What is read of a process's timers.
#[derive(Debug)]
pub struct Timers {
    listed: Vec<Listed>,
    kept: Vec<Kept>,
}

impl Timers {
    /// Whether none has expired between two looks.
    #[must_use]
    pub fn none_expired(&self, after: &Timers) -> bool {
        self.kept == after.kept
    }
}

/// Reads the timers of a process whose threads all stand still; none when they cannot be told.
///
/// # Errors
/// When the process is gone.
pub fn read(process: &Process, proc: &mut Proc, kernel: &mut Kernel) -> Result<Option<Timers>, Failure> {
    // Most processes have none, and the file costs more than all that is read here.
    let none = kernel.has_no_timers(process.alive().host);
    let listed = if none { Vec::new() } else { list(process, proc)? };
    if listed.is_empty() {
        return Ok(Some(Timers { listed, kept: Vec::new() }));
    }
    let kept = kernel.ask(process.alive().host, &file(process), |state, task| state.posix_timers(task))?;
    Ok(kept.map(|kept| Timers { listed, kept }))
}

/// The records of what [`read`] found. `pending` is every signal queued for the process or a thread of it since.
///
/// # Errors
/// When the process is gone.
pub fn records<'a>(
    timers: Timers,
    process: &Process,
    subjects: &Subjects,
    pending: impl Iterator<Item = &'a PendingSignal>,
    proc: &mut Proc,
    moment: &Moment,
    findings: &mut Findings,
) -> Result<Vec<PosixTimer>, Failure> {
    let Timers { listed, kept } = timers;
    let object = file(process);
    let kept: BTreeMap<u32, Kept> = kept.into_iter().map(|timer| (timer.id, timer)).collect();
    let waiting: Vec<u32> = pending.filter_map(sender).collect();
    let thread = |host: i32| {
        let own = process.threads.iter().any(|thread| thread.host == host && !thread.has_ended());
        subjects.ids.get(&host).copied().filter(|_| own)
    };
    let mut records = Vec::new();
    for listed in listed {
        let missing = || Failure::new(Kind::Stale, format!("{object}: the timer {} is gone; freeze again", listed.id));
        let kept = kept.get(&listed.id).ok_or_else(missing)?;
        let clock = match kept.expiry {
            Expiry::Clock { .. } => wall_or_monotonic(kept.clock),
            Expiry::Cpu { tid, .. } if kept.clock & KIND_MASK == THREAD_TIME => {
                thread(tid).map(TimerClock::CLOCK_THREAD_CPUTIME_ID)
            }
            Expiry::Cpu { tid, .. } => (tid == process.host).then_some(TimerClock::CLOCK_PROCESS_CPUTIME_ID),
        };
        let Some(clock) = clock else {
            findings.block(
                &object,
                format!(
                    "has a POSIX timer (id {}) on the processor time of another process or ended thread",
                    listed.id
                ),
                "Delete it (timer_delete)",
            );
            continue;
        };
        let Some(notify) = notify(&listed, thread) else {
            findings.block(
                &object,
                format!("has a POSIX timer (id {}) that signals a thread which has ended", listed.id),
                "Delete it (timer_delete)",
            );
            continue;
        };
        let state = state(&listed, kept, waiting.contains(&listed.id), moment, proc, process)
            .doing(|| format!("{object}: the timer {}: reading its clock", listed.id))?;
        records.push(PosixTimer {
            id: listed.id,
            clock,
            notify,
            value: listed.value,
            state,
            interval: Timespec::from_ns(kept.interval_ns.into()),
            absolute: match kept.expiry {
                Expiry::Clock { clock: base, .. } => matches!(base, libc::CLOCK_REALTIME | libc::CLOCK_TAI),
                Expiry::Cpu { .. } => false,
            } && state != TimerState::Disarmed,
            overrun: u32::try_from(kept.overrun).unwrap_or(0).min(i32::MAX.cast_unsigned()),
        });
    }
    records.sort_by_key(|timer| timer.id);
    Ok(records)
}

fn wall_or_monotonic(clock: i32) -> Option<TimerClock> {
    Some(match clock {
        libc::CLOCK_REALTIME => TimerClock::CLOCK_REALTIME,
        libc::CLOCK_MONOTONIC => TimerClock::CLOCK_MONOTONIC,
        libc::CLOCK_BOOTTIME => TimerClock::CLOCK_BOOTTIME,
        libc::CLOCK_TAI => TimerClock::CLOCK_TAI,
        _ => return None,
    })
}

fn notify(listed: &Listed, thread: impl Fn(i32) -> Option<Pid>) -> Option<Notify> {
    let signal = Signal(listed.signal);
    Some(match listed.way {
        Way::Nothing => Notify::SIGEV_NONE,
        Way::Signal => Notify::SIGEV_SIGNAL(signal),
        Way::Thread => Notify::SIGEV_THREAD(signal),
        Way::ThreadId => Notify::SIGEV_THREAD_ID(NotifyThread { signal, thread: thread(listed.target)? }),
    })
}

/// Whether it runs, as of the moment of the freeze. Its clock may have run on since.
fn state(
    listed: &Listed,
    kept: &Kept,
    waiting: bool,
    moment: &Moment,
    proc: &mut Proc,
    process: &Process,
) -> Result<TimerState, Failure> {
    let (now, expires) = match kept.expiry {
        Expiry::Clock { clock, ns } => (clock_at(moment, clock)?, ns),
        Expiry::Cpu { tid, ns } => (processor_time(kept.clock, tid, process.host, proc)?, ns),
    };
    let left = i128::from(expires) - i128::from(now);
    // A nanosecond at least: nothing would be disarmed.
    let remaining = TimerState::Remaining(Timespec::from_ns(left.max(1)));
    let expired = TimerState::Expired(Timespec::from_ns((-left).max(0)));
    Ok(match kept.status {
        PosixTimerStatus::Armed => remaining,
        // After the moment that the clocks go on from: it has yet to expire, and what it has sent is left out.
        PosixTimerStatus::Expired | PosixTimerStatus::Disarmed if waiting && left > 0 => remaining,
        PosixTimerStatus::Expired => expired,
        PosixTimerStatus::Disarmed if waiting => expired,
        // It tells nobody, so the kernel only remembers when it ends, and is asked by timer_gettime(2).
        PosixTimerStatus::Disarmed if listed.way == Way::Nothing && (left > 0 || kept.interval_ns > 0) => {
            match kept.interval_ns {
                0 => remaining,
                interval => TimerState::Remaining(Timespec::from_ns(next_end(left, interval.into()))),
            }
        }
        PosixTimerStatus::Disarmed => TimerState::Disarmed,
    })
}

fn clock_at(moment: &Moment, clock: i32) -> Result<i64, Failure> {
    match moment.of_clock(clock) {
        Some(ns) => Ok(ns),
        None => crfs_sys::time::clock_ns(clock).doing(|| "reading a clock"),
    }
}

/// The processor time used, nanoseconds. It stands still.
fn processor_time(clock: i32, tid: i32, process: i32, proc: &mut Proc) -> Result<i64, Failure> {
    if clock & KIND_MASK == PROCESS_TIME {
        let process = nix::unistd::Pid::from_raw(process);
        return crfs_sys::time::process_cpu_ns(process).doing(|| "reading its processor clock");
    }
    let text = proc.text(format_args!("{process}/task/{tid}/schedstat"))?;
    let first = text.split_ascii_whitespace().next().and_then(|word| word.parse().ok());
    first.ok_or_else(|| Failure::new(Kind::Unsupported, format!("/proc/{process}/task/{tid}/schedstat is malformed")))
}

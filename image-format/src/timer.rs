//! `timers` of a thread: what fires by itself and sends a signal.

use crate::signal::Signal;
use crate::types::{Hex, Pid, Timespec};
use serde::{Deserialize, Serialize};

/// A line of `timers`. They are the process's, and stand in the file of its first thread that lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Timer {
    /// Of setitimer(2), armed.
    Interval(IntervalTimer),
    /// Of timer_create(2), armed or not.
    Posix(PosixTimer),
}

/// The timers of a process by kind.
#[derive(Clone, Debug, Default)]
pub struct Timers<'a> {
    /// Of setitimer(2).
    pub interval: Vec<&'a IntervalTimer>,
    /// Of timer_create(2).
    pub posix: Vec<&'a PosixTimer>,
}

/// An armed interval timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntervalTimer {
    /// Which of the three.
    pub which: IntervalTimerKind,
    /// Until it fires next.
    pub remaining: Timespec,
    /// Between later firings; zero for one that fires once.
    pub interval: Timespec,
}

/// setitimer(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs, non_camel_case_types, clippy::upper_case_acronyms)] // the kernel's spelling
pub enum IntervalTimerKind {
    ITIMER_REAL,
    ITIMER_VIRTUAL,
    ITIMER_PROF,
}

/// A POSIX timer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PosixTimer {
    /// What timer_create(2) returned.
    pub id: u32,
    /// What it counts.
    pub clock: TimerClock,
    /// What it does when it expires.
    pub notify: Notify,
    /// `sigev_value`.
    pub value: Hex,
    /// Whether it runs.
    pub state: TimerState,
    /// Between later expirations; zero for one that expires once.
    pub interval: Timespec,
    /// Set to a point in time (`TIMER_ABSTIME`). Known of CLOCK_REALTIME and CLOCK_TAI alone: the others never jump.
    pub absolute: bool,
    /// timer_getoverrun(2).
    pub overrun: u32,
}

/// The clock of a POSIX timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, non_camel_case_types, clippy::upper_case_acronyms)] // the kernel's spelling
pub enum TimerClock {
    CLOCK_REALTIME,
    CLOCK_MONOTONIC,
    CLOCK_BOOTTIME,
    CLOCK_TAI,
    /// The processor time of its own process.
    CLOCK_PROCESS_CPUTIME_ID,
    /// The processor time of this thread of its own process.
    CLOCK_THREAD_CPUTIME_ID(Pid),
}

/// `sigev_notify`, with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, non_camel_case_types, clippy::upper_case_acronyms)] // the kernel's spelling
pub enum Notify {
    SIGEV_NONE,
    /// A signal to the process.
    SIGEV_SIGNAL(Signal),
    /// The same to the kernel; libc reads it otherwise.
    SIGEV_THREAD(Signal),
    /// A signal to one of its threads.
    SIGEV_THREAD_ID(NotifyThread),
}

/// Of `SIGEV_THREAD_ID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NotifyThread {
    /// What it gets.
    pub signal: Signal,
    /// Who gets it.
    pub thread: Pid,
}

/// Whether a POSIX timer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TimerState {
    /// It does not.
    Disarmed,
    /// It expires when so much time has passed.
    Remaining(Timespec),
    /// It expired so long ago, and its signal waits to be taken. A periodic one goes on then, and counts what it missed.
    Expired(Timespec),
}

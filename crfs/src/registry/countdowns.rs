//! What the file `countdowns.json` says.

use image_format::files::Timerfd;
use image_format::signal::PendingSignal;
use image_format::thread::ThreadAttr;
use image_format::timer::{IntervalTimer, PosixTimer};
use image_format::{Pid, Timespec};
use serde::{Deserialize, Serialize};

/// What counts a length of time in a restored container, with what remained of it in the image. The build has set it going, and the
/// container may stand still for days before it first runs: then it is set again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Countdowns {
    /// Waits in system calls.
    pub waits: Vec<CountedWait>,
    /// timerfds, each once.
    pub timerfds: Vec<CountedTimerfd>,
    /// Timers of processes.
    pub timers: Vec<CountedTimers>,
}

/// A thread as the host numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostThread {
    /// Its process.
    pub process: i32,
    /// The thread.
    pub thread: i32,
}

/// A wait whose end the build has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountedWait {
    /// Who waits.
    pub thread: HostThread,
    /// For how long.
    pub remaining: Timespec,
}

/// A timerfd that is armed with a length of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountedTimerfd {
    /// A thread that has it open.
    pub thread: HostThread,
    /// Under this number.
    pub fd: u32,
    /// What the image says of it.
    pub timer: Timerfd,
}

/// The timers of a process that count lengths of time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountedTimers {
    /// The process as the container numbers it.
    pub pid: Pid,
    /// The same as the host numbers it.
    pub host: i32,
    /// Its first thread that lives.
    pub first: Pid,
    /// Of setitimer(2).
    pub interval: Vec<IntervalTimer>,
    /// Of timer_create(2).
    pub posix: Vec<PosixTimer>,
    /// Signals that waited for the process.
    pub pending: Vec<PendingSignal>,
    /// Signals that waited for that thread.
    pub own_pending: Vec<PendingSignal>,
    /// What the image says of that thread.
    pub attr: ThreadAttr,
}

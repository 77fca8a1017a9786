//! Timers of timer_create(2): what /proc/PID/timers does not tell of them.
//!
//! Source: include/linux/posix-timers.h (`struct k_itimer`), kernel/time/posix-timers.c, kernel/time/posix-cpu-timers.c, v6.18;
//! timer_settime(2), timer_getoverrun(2).

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::{Task, word};

/// More timers than memory has room for: the list is no list.
const MAX_TIMERS: usize = 1 << 24;

/// A POSIX timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PosixTimer {
    /// What timer_create(2) returned.
    pub id: u32,
    /// The clock as the kernel numbers it; that of a processor clock is negative, and holds the task it was named by, or none.
    pub clock: i32,
    /// Whether it runs.
    pub status: PosixTimerStatus,
    /// Nanoseconds between expirations, 0 for a timer that expires once.
    pub interval_ns: u64,
    /// timer_getoverrun(2).
    pub overrun: u64,
    /// When it expires or, unless it is armed, did so last.
    pub expiry: Expiry,
}

/// `it_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PosixTimerStatus {
    /// It does not run. So say those with `SIGEV_NONE` at all times, and those that expired once.
    Disarmed,
    /// It runs.
    Armed,
    /// It is periodic and has expired, and goes on once its signal has been taken.
    Expired,
}

/// An expiry in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// In the host's time of a clock: CLOCK_MONOTONIC for a timer of CLOCK_REALTIME that was set to a length of time.
    Clock {
        /// The clock.
        clock: i32,
        /// The time.
        ns: u64,
    },
    /// In processor time.
    Cpu {
        /// The host's id of the thread, or of the process whose threads are counted together; 0 once it is gone.
        tid: i32,
        /// The time.
        ns: u64,
    },
}

impl KernelState {
    /// The timers of the task's process, the one made last first.
    ///
    /// # Errors
    /// [`Error::List`] for a list that has no end, or a status unknown here; [`Error::FeatureOff`], [`Error::Read`].
    pub fn posix_timers(&self, task: &Task) -> Result<Vec<PosixTimer>, Error> {
        let view = self.view(Feature::PosixTimers, task)?;
        let broken = || Error::List { tid: task.tid(), list: "posix_timers" };
        let link = view.offset(Path::TimerNode)?;
        let mut node = view.u64(&[Path::TaskSignal, Path::PosixTimers])?;
        let mut timers = Vec::new();
        while node != 0 {
            let timer = node.wrapping_sub(link);
            let at = |path| view.u64_from(timer, &[path]);
            let clock = view.u32_from(timer, &[Path::TimerClock])?.cast_signed();
            let status = match view.u32_from(timer, &[Path::TimerStatus])? {
                0 => PosixTimerStatus::Disarmed,
                1 => PosixTimerStatus::Armed,
                2 => PosixTimerStatus::Expired,
                _ => return Err(broken()),
            };
            let expiry = if clock < 0 {
                let pid = at(Path::TimerCpuPid)?;
                let tid = if pid == 0 { 0 } else { view.u32_from(pid, &[Path::PidNumbers])?.cast_signed() };
                Expiry::Cpu { tid, ns: at(Path::TimerCpuExpires)? }
            } else {
                let base = view.u32_from(timer, &[Path::TimerBase, Path::TimerBaseClock])?.cast_signed();
                Expiry::Clock { clock: base, ns: at(Path::TimerExpires)? }
            };
            timers.push(PosixTimer {
                id: view.u32_from(timer, &[Path::TimerId])?,
                clock,
                status,
                interval_ns: at(Path::TimerInterval)?,
                overrun: at(Path::TimerOverrun)?,
                expiry,
            });
            if timers.len() > MAX_TIMERS {
                return Err(broken());
            }
            let mut links = [0; 16];
            view.bytes_at(node, Path::TimerNode, &mut links)?;
            node = word(&links, 0);
        }
        Ok(timers)
    }
}

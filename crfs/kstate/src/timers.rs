//! Interval timers with the time that remains.
//!
//! Source: kernel/time/itimer.c (`itimer_get_remtime`, `get_cpu_itimer`), kernel/time/posix-cpu-timers.c (`thread_group_sample_cputime`),
//! include/linux/sched/signal.h, v6.18; getitimer(2).

use nix::time::{ClockId, clock_gettime};

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::{KernelState, View};
use crate::tasks::Task;

/// Bit of an enqueued timer (HRTIMER_STATE_ENQUEUED).
const ENQUEUED: u8 = 1;
/// What the kernel says of a timer that is due: never 0, which would mean "off".
const LEAST_NS: u64 = 1000;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// An interval timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Itimer {
    /// Nanoseconds until it expires, as getitimer(2) would tell; 0 when it is off.
    ///
    /// ITIMER_REAL with 0 here and an interval has expired, and goes on once its pending SIGALRM has been taken.
    pub remaining_ns: u64,
    /// Nanoseconds between expiries, 0 for a timer that expires once.
    pub interval_ns: u64,
    /// ITIMER_REAL: when it expires or, with nothing remaining, when it last did (or would have, had it not been stopped): nanoseconds of
    /// the host's CLOCK_MONOTONIC. None for one that was never set.
    /// It runs on while the task is frozen, so the time that remained at the freeze is to be counted from this. The other two stand still
    /// with the task, and have none.
    pub expires_ns: Option<u64>,
}

impl KernelState {
    /// ITIMER_REAL, ITIMER_VIRTUAL and ITIMER_PROF of the task's process, in this order.
    ///
    /// # Errors
    /// [`Error::FeatureOff`] when [`Feature::RealTimer`] or [`Feature::CpuTimers`] is off; [`Error::Read`].
    pub fn itimers(&self, task: &Task) -> Result<[Itimer; 3], Error> {
        let [virt, prof] = self.cpu_itimers(task)?;
        Ok([self.real_itimer(task)?, virt, prof])
    }

    pub(crate) fn real_itimer(&self, task: &Task) -> Result<Itimer, Error> {
        let view = self.view(Feature::RealTimer, task)?;
        let mut state = [0];
        view.bytes(&[Path::TaskSignal, Path::RealState], &mut state)?;
        let interval_ns = view.u64(&[Path::TaskSignal, Path::RealInterval])?;
        let is_on = state[0] & ENQUEUED != 0;
        let expires = view.u64(&[Path::TaskSignal, Path::RealExpires])?;
        if !is_on && expires == 0 {
            return Ok(Itimer { interval_ns, ..Itimer::default() });
        }
        let remaining_ns = if is_on { expires.saturating_sub(monotonic_ns()).max(LEAST_NS) } else { 0 };
        Ok(Itimer { remaining_ns, interval_ns, expires_ns: Some(expires) })
    }

    /// ITIMER_VIRTUAL and ITIMER_PROF. They expire at a sum of the process's processor times, which the kernel keeps while one is on.
    pub(crate) fn cpu_itimers(&self, task: &Task) -> Result<[Itimer; 2], Error> {
        let view = self.view(Feature::CpuTimers, task)?;
        let user = view.u64(&[Path::TaskSignal, Path::CpuUser])?;
        let system = view.u64(&[Path::TaskSignal, Path::CpuSystem])?;
        let one = |view: &View<'_>, expires, interval, now: u64| -> Result<Itimer, Error> {
            let expires = view.u64(&[Path::TaskSignal, expires])?;
            let interval_ns = view.u64(&[Path::TaskSignal, interval])?;
            let remaining_ns = if expires == 0 { 0 } else { expires.saturating_sub(now).max(LEAST_NS) };
            Ok(Itimer { remaining_ns, interval_ns, expires_ns: None })
        };
        Ok([
            one(&view, Path::VirtualExpires, Path::VirtualInterval, user)?,
            one(&view, Path::ProfExpires, Path::ProfInterval, user.wrapping_add(system))?,
        ])
    }
}

/// Now, in nanoseconds of CLOCK_MONOTONIC.
pub(crate) fn monotonic_ns() -> u64 {
    // Reading this clock cannot fail.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |now| now.tv_sec().unsigned_abs() * NS_PER_SECOND + now.tv_nsec().unsigned_abs())
}

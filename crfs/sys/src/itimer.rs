//! Interval timers of the calling process.
//!
//! Source: setitimer(2).

use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::time::Duration;

use nix::Result;
use nix::errno::Errno;

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Real time, SIGALRM.
    Real,
    /// User time of the process, SIGVTALRM.
    Virtual,
    /// User and system time of the process, SIGPROF.
    Prof,
}

impl Which {
    fn raw(self) -> libc::c_int {
        match self {
            Which::Real => libc::ITIMER_REAL,
            Which::Virtual => libc::ITIMER_VIRTUAL,
            Which::Prof => libc::ITIMER_PROF,
        }
    }
}

fn timeval(time: Duration) -> Result<libc::timeval> {
    let tv_sec = time.as_secs().try_into().map_err(|_| Errno::EINVAL)?;
    Ok(libc::timeval { tv_sec, tv_usec: time.subsec_micros().into() })
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
}

/// Arms a timer: first after `value`, then every `interval` (zero: once). A `value` of zero disarms it.
pub fn set(which: Which, value: Duration, interval: Duration) -> Result<()> {
    let new = libc::itimerval { it_interval: timeval(interval)?, it_value: timeval(value)? };
    // SAFETY: reads one structure; the old value is not asked for.
    Errno::result(unsafe { libc::setitimer(which.raw(), &raw const new, null_mut()) }).map(drop)
}

/// The time until the timer fires (zero: disarmed) and its interval.
pub fn get(which: Which) -> Result<(Duration, Duration)> {
    let mut now = MaybeUninit::<libc::itimerval>::uninit();
    // SAFETY: writes one structure.
    Errno::result(unsafe { libc::getitimer(which.raw(), now.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it is filled.
    let now = unsafe { now.assume_init() };
    Ok((duration(now.it_value), duration(now.it_interval)))
}

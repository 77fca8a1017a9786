//! timerfd_settime(2) on a descriptor that another process made: nix sets only timers it created.
//!
//! Source: timerfd_create(2); `fs/timerfd.c`, v6.18.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;
use std::time::Duration;

use libc::{itimerspec, timespec};
use nix::Result;
use nix::errno::Errno;

fn spec(time: Duration) -> Result<timespec> {
    let tv_sec = i64::try_from(time.as_secs()).map_err(|_| Errno::EINVAL)?;
    Ok(timespec { tv_sec, tv_nsec: time.subsec_nanos().into() })
}

/// Sets a timer to expire after `remaining`, and every `interval` from then on unless that is zero. Expirations not yet read are
/// forgotten. `EINVAL`: it is no timerfd.
pub fn set_relative(timer: BorrowedFd<'_>, remaining: Duration, interval: Duration) -> Result<()> {
    let new = itimerspec { it_interval: spec(interval)?, it_value: spec(remaining)? };
    // SAFETY: the kernel reads one itimerspec and is told to write none.
    Errno::result(unsafe { libc::timerfd_settime(timer.as_raw_fd(), 0, &raw const new, null_mut()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags};
    use std::os::fd::AsFd;

    #[test]
    fn a_timer_is_set_again() {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty()).unwrap();
        set_relative(timer.as_fd(), Duration::from_secs(100), Duration::from_secs(7)).unwrap();
        let Some(Expiration::IntervalDelayed(remaining, interval)) = timer.get().unwrap() else {
            panic!("{:?}", timer.get());
        };
        assert!((99..=100).contains(&remaining.tv_sec()) && interval.tv_sec() == 7);
        let null = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(set_relative(null.as_fd(), Duration::ZERO, Duration::ZERO), Err(Errno::EINVAL));
    }
}

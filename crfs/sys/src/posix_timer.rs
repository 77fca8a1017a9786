//! Timers of timer_create(2), bare: with the kernel's ids, real-time signals and threads, which nix does not cover.
//!
//! Source: timer_create(2), timer_settime(2), timer_getoverrun(2); `include/uapi/asm-generic/siginfo.h`, v6.18.

use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::time::Duration;

use libc::{c_int, clockid_t, itimerspec, timespec};
use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// What happens when a timer expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notify {
    /// Nothing.
    Nobody,
    /// The process gets a signal.
    Process(i32),
    /// A thread of it does.
    Thread(i32, Pid),
}

/// `struct sigevent`
#[repr(C)]
struct SigEvent {
    value: usize,
    signal: c_int,
    notify: c_int,
    thread: c_int,
    pad: [c_int; 11],
}
const _: () = assert!(size_of::<SigEvent>() == 64);

/// Makes a timer, disarmed, whose signals carry `value`, and returns its id.
pub fn create(clock: clockid_t, notify: Notify, value: usize) -> Result<i32> {
    let (how, signal, thread) = match notify {
        Notify::Nobody => (libc::SIGEV_NONE, 0, 0),
        Notify::Process(signal) => (libc::SIGEV_SIGNAL, signal, 0),
        Notify::Thread(signal, thread) => (libc::SIGEV_THREAD_ID, signal, thread.as_raw()),
    };
    let mut event = SigEvent { value, signal, notify: how, thread, pad: [0; 11] };
    let mut id: c_int = 0;
    // SAFETY: reads one sigevent and writes one int.
    Errno::result(unsafe { libc::syscall(libc::SYS_timer_create, clock, &raw mut event, &raw mut id) })?;
    Ok(id)
}

/// Deletes a timer.
pub fn delete(id: i32) -> Result<()> {
    // SAFETY: takes a number.
    Errno::result(unsafe { libc::syscall(libc::SYS_timer_delete, id) }).map(drop)
}

/// Arms a timer: first after `value`, or at that time of its clock if `absolute`; then every `interval` unless that is zero.
pub fn set(id: i32, absolute: bool, value: Duration, interval: Duration) -> Result<()> {
    let new = itimerspec { it_interval: spec(interval)?, it_value: spec(value)? };
    let flags = if absolute { libc::TIMER_ABSTIME } else { 0 };
    let old: *mut itimerspec = null_mut();
    // SAFETY: reads one itimerspec and is told to write none.
    Errno::result(unsafe { libc::syscall(libc::SYS_timer_settime, id, flags, &raw const new, old) }).map(drop)
}

/// The time until a timer expires (zero: disarmed) and its interval.
pub fn get(id: i32) -> Result<(Duration, Duration)> {
    let mut now = MaybeUninit::<itimerspec>::uninit();
    // SAFETY: writes one itimerspec.
    Errno::result(unsafe { libc::syscall(libc::SYS_timer_gettime, id, now.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it is filled.
    let now = unsafe { now.assume_init() };
    Ok((duration(now.it_value), duration(now.it_interval)))
}

/// How many expirations were missed by the last signal that was taken.
pub fn overrun(id: i32) -> Result<i64> {
    // SAFETY: takes a number.
    Errno::result(unsafe { libc::syscall(libc::SYS_timer_getoverrun, id) })
}

fn spec(time: Duration) -> Result<timespec> {
    let tv_sec = i64::try_from(time.as_secs()).map_err(|_| Errno::EINVAL)?;
    Ok(timespec { tv_sec, tv_nsec: time.subsec_nanos().into() })
}

fn duration(time: timespec) -> Duration {
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_says_what_it_was_told() {
        let id = create(libc::CLOCK_MONOTONIC, Notify::Nobody, 7).unwrap();
        assert_eq!(get(id), Ok((Duration::ZERO, Duration::ZERO)));
        set(id, false, Duration::from_secs(100), Duration::from_secs(7)).unwrap();
        let (remaining, interval) = get(id).unwrap();
        assert!(remaining <= Duration::from_secs(100) && remaining > Duration::from_secs(50), "{remaining:?}");
        assert_eq!((interval, overrun(id)), (Duration::from_secs(7), Ok(0)));
        delete(id).unwrap();
        assert_eq!(get(id), Err(Errno::EINVAL));
    }
}

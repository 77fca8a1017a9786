//! Calls that wait, bare: an interruption is returned and not hidden as the standard library does.
//!
//! Source: nanosleep(2), clock_nanosleep(2), futex(2), epoll_wait(2).

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{null, null_mut};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use nix::Result;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;

/// Sleeps. `EINTR` when a handler ran.
pub fn nanosleep(time: Duration) -> Result<()> {
    let time = TimeSpec::from(time);
    // SAFETY: reads a timespec; the remaining time is not asked for.
    Errno::result(unsafe { libc::nanosleep(time.as_ref(), null_mut()) }).map(drop)
}

/// Sleeps until CLOCK_MONOTONIC shows `until`. `EINTR` when a handler ran.
pub fn sleep_until(until: Duration) -> Result<()> {
    let until = TimeSpec::from(until);
    // SAFETY: reads a timespec.
    let result =
        unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, until.as_ref(), null_mut()) };
    if result == 0 { Ok(()) } else { Err(Errno::from_raw(result)) }
}

/// Waits until something is ready, with these signals blocked meanwhile (signal 1 in bit 0), and returns how many are (1 or 0). `EINTR`
/// when a handler ran.
pub fn epoll_pwait2(epoll: BorrowedFd<'_>, timeout: Option<Duration>, mask: Option<u64>) -> Result<i64> {
    let timeout = timeout.map(|timeout| *TimeSpec::from(timeout).as_ref());
    let timeout: *const libc::timespec = timeout.as_ref().map_or(null(), std::ptr::from_ref);
    let mask: *const u64 = mask.as_ref().map_or(null(), std::ptr::from_ref);
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: reads a timespec and eight bytes of mask, or null, and writes at most the one event there is room for.
    Errno::result(unsafe {
        let (epoll, event) = (epoll.as_raw_fd(), &raw mut event);
        libc::syscall(libc::SYS_epoll_pwait2, epoll, event, 1, timeout, mask, size_of::<u64>())
    })
}

/// Waits until the word is woken. `EAGAIN`: it is not `expected`; `ETIMEDOUT`; `EINTR` when a handler ran.
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout: Option<Duration>) -> Result<()> {
    let timeout = timeout.map(|timeout| *TimeSpec::from(timeout).as_ref());
    let timeout: *const libc::timespec = timeout.as_ref().map_or(null(), std::ptr::from_ref);
    // SAFETY: the kernel reads the word and a timespec or null.
    let result = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, timeout) };
    Errno::result(result).map(drop)
}

/// Wakes one waiter and returns how many there were.
pub fn futex_wake(word: &AtomicU32) -> Result<i64> {
    // SAFETY: the kernel takes the word's address only as a key.
    Errno::result(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) })
}

//! Calls that wait, bare: an interruption is returned and not hidden as the standard library does.
//!
//! Source: nanosleep(2), clock_nanosleep(2), futex(2), Documentation/userspace-api/futex2.rst, epoll_wait(2).

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::{null, null_mut};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use nix::Result;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::time::ClockId;

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

/// Sleeps by a clock. `EINTR` when a handler ran.
pub fn sleep_by(clock: ClockId, time: Duration) -> Result<()> {
    let time = TimeSpec::from(time);
    // SAFETY: reads a timespec; the remaining time is not asked for.
    let result = unsafe { libc::clock_nanosleep(clock.as_raw(), 0, time.as_ref(), null_mut()) };
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

/// Waits until the word is woken, or CLOCK_MONOTONIC shows `until` (FUTEX_WAIT_BITSET). Errors as of [`futex_wait`].
pub fn futex_wait_until(word: &AtomicU32, expected: u32, until: Duration) -> Result<()> {
    let until = TimeSpec::from(until);
    let any = libc::FUTEX_BITSET_MATCH_ANY;
    // SAFETY: the kernel reads the word and a timespec.
    let result = unsafe {
        let (word, until, unused) = (word.as_ptr(), std::ptr::from_ref(until.as_ref()), null::<u32>());
        libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT_BITSET, expected, until, unused, any)
    };
    Errno::result(result).map(drop)
}

/// `struct futex_waitv`, `include/uapi/linux/futex.h`.
#[repr(C)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}
const _: () = assert!(size_of::<Waiter>() == 24);

/// The same by futex_waitv(2).
pub fn futex_waitv_until(word: &AtomicU32, expected: u32, until: Duration) -> Result<()> {
    const FUTEX2_SIZE_U32: u32 = 2;
    let until = TimeSpec::from(until);
    let address = word.as_ptr().expose_provenance() as u64;
    let waiter = Waiter { value: expected.into(), address, flags: FUTEX2_SIZE_U32, reserved: 0 };
    // SAFETY: the kernel reads one waiter, the word that it points to, which lives for the call, and a timespec.
    let result = unsafe {
        let (waiter, until) = (std::ptr::from_ref(&waiter), std::ptr::from_ref(until.as_ref()));
        libc::syscall(libc::SYS_futex_waitv, waiter, 1u32, 0u32, until, libc::CLOCK_MONOTONIC)
    };
    Errno::result(result).map(drop)
}

/// Wakes one waiter and returns how many there were.
pub fn futex_wake(word: &AtomicU32) -> Result<i64> {
    // SAFETY: the kernel takes the word's address only as a key.
    Errno::result(unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, 1) })
}

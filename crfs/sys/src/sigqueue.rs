//! Signals with a value, and taking pending ones off the queue.
//!
//! Source: sigqueue(3), sigtimedwait(2).

use std::mem::MaybeUninit;
use std::ptr::null;
use std::time::Duration;

use nix::Result;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::unistd::Pid;

/// A signal taken off the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its number.
    pub signal: i32,
    /// `si_code`, such as `SI_QUEUE`.
    pub code: i32,
    /// Who sent it.
    pub pid: i32,
    /// The value that came with it.
    pub value: usize,
}

/// Sends a signal with a value. `EAGAIN` when the queue is full (`RLIMIT_SIGPENDING`).
pub fn queue(pid: Pid, signal: i32, value: usize) -> Result<()> {
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(value) };
    // SAFETY: no memory of ours is passed; the value travels as a number.
    Errno::result(unsafe { libc::sigqueue(pid.as_raw(), signal, value) }).map(drop)
}

/// Queues to the calling process what the kernel sends for a fault: a code of `SEGV_*` and the like, and an address. The siginfo of
/// anybody may be queued to oneself.
pub fn queue_fault(signal: i32, code: i32, address: u64) -> Result<()> {
    // struct siginfo of 64 bits: si_signo, si_errno, si_code, padding, si_addr.
    let mut info = [0u64; 16];
    info[0] = u64::from(signal.cast_unsigned());
    info[1] = u64::from(code.cast_unsigned());
    info[2] = address;
    // SAFETY: reads the 128 bytes of a siginfo_t.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, libc::getpid(), signal, info.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Waits for one of the blocked signals of `mask` (signal 1 in bit 0) and takes it. `EAGAIN` when none came in time.
pub fn take(mask: u64, timeout: Option<Duration>) -> Result<Taken> {
    let timeout = timeout.map(|timeout| *TimeSpec::from(timeout).as_ref());
    let timeout: *const libc::timespec = timeout.as_ref().map_or(null(), std::ptr::from_ref);
    let mut info = MaybeUninit::<libc::siginfo_t>::uninit();
    // SAFETY: reads eight bytes of mask and a timespec or null, writes a siginfo_t.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigtimedwait, &raw const mask, info.as_mut_ptr(), timeout, size_of::<u64>())
    };
    Errno::result(result)?;
    // SAFETY: the call succeeded, so the kernel filled it; pid and value are plain numbers in every siginfo that
    // sigqueue or kill makes, and zero or another plain number otherwise.
    let (info, pid, value) = unsafe {
        let info = info.assume_init();
        (info, info.si_pid(), info.si_value().sival_ptr.addr())
    };
    Ok(Taken { signal: info.si_signo, code: info.si_code, pid, value })
}

/// The signals pending for the calling thread or its process, signal 1 in bit 0.
pub fn pending() -> Result<u64> {
    let mut set = 0u64;
    // SAFETY: writes eight bytes.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, size_of::<u64>()) };
    Errno::result(result)?;
    Ok(set)
}

/// Sends a signal to one thread of the calling process.
pub fn to_thread(tid: Pid, signal: i32) -> Result<()> {
    // SAFETY: takes three numbers.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid.as_raw(), signal) };
    Errno::result(result).map(drop)
}

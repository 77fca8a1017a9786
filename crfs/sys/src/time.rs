//! Clocks: CPU time of other processes, and any clock as nanoseconds.
//!
//! Source: clock_gettime(2), clock_getcpuclockid(3); `include/linux/posix-timers.h`, v6.18.

use libc::clockid_t;
use nix::Result;
use nix::errno::Errno;
use nix::time::{ClockId, clock_getres, clock_gettime};
use nix::unistd::Pid;

/// What a clock shows, in nanoseconds. `EINVAL`: there is no such clock (or no such process, for a CPU clock).
pub fn clock_ns(clock: clockid_t) -> Result<i64> {
    let now = clock_gettime(ClockId::from_raw(clock))?;
    now.tv_sec().checked_mul(1_000_000_000).and_then(|ns| ns.checked_add(now.tv_nsec())).ok_or(Errno::EOVERFLOW)
}

/// How far apart two times are that a clock shows, in nanoseconds.
pub fn clock_resolution_ns(clock: clockid_t) -> Result<u64> {
    let step = clock_getres(ClockId::from_raw(clock))?;
    u64::try_from(step.tv_sec() * 1_000_000_000 + step.tv_nsec()).map_err(|_| Errno::EOVERFLOW)
}

/// The CPU time of all threads of a process that ever were, in nanoseconds. `ESRCH`: it is gone.
///
/// The clock's number is `MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)`.
pub fn process_cpu_ns(pid: Pid) -> Result<i64> {
    cpu_ns((!pid.as_raw() << 3) | 2)
}

/// The CPU time of one thread, in nanoseconds: only of the caller's own process, the kernel shows no other's.
///
/// The clock's number is `MAKE_THREAD_CPUCLOCK(tid, CPUCLOCK_SCHED)`. `ESRCH` for a thread of another process.
pub fn thread_cpu_ns(tid: Pid) -> Result<i64> {
    cpu_ns((!tid.as_raw() << 3) | 4 | 2)
}

fn cpu_ns(clock: clockid_t) -> Result<i64> {
    // The number itself is always well formed here, so EINVAL can only mean the process.
    clock_ns(clock).map_err(|errno| if errno == Errno::EINVAL { Errno::ESRCH } else { errno })
}

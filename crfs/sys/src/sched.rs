//! Scheduling attributes of any thread.
//!
//! Source: sched_setattr(2), sched_setaffinity(2), ioprio_set(2), getpriority(2); `include/uapi/linux/sched/types.h`, v6.18.

use std::mem::size_of;

use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// `struct sched_attr`, version 1: 56 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchedAttr {
    /// Size of this structure.
    size: u32,
    /// `SCHED_OTHER`, `SCHED_FIFO`, ...
    pub policy: u32,
    /// `SCHED_FLAG_*`
    pub flags: u64,
    /// Nice value, for the time-sharing policies.
    pub nice: i32,
    /// Static priority, for the real-time policies.
    pub priority: u32,
    /// Nanoseconds; with `SCHED_DEADLINE`, or the slice a time-sharing task asked for.
    pub runtime: u64,
    /// Nanoseconds; `SCHED_DEADLINE`.
    pub deadline: u64,
    /// Nanoseconds; `SCHED_DEADLINE`.
    pub period: u64,
    /// Utilization clamp, 0 to 1024.
    pub util_min: u32,
    /// Utilization clamp, 0 to 1024.
    pub util_max: u32,
}
const _: () = assert!(size_of::<SchedAttr>() == 56);

/// The policy and its parameters.
pub fn attributes(tid: Pid) -> Result<SchedAttr> {
    let mut attr = SchedAttr::default();
    // SAFETY: the kernel writes at most the size that is announced.
    let result =
        unsafe { libc::syscall(libc::SYS_sched_getattr, tid.as_raw(), &raw mut attr, size_of::<SchedAttr>(), 0) };
    Errno::result(result)?;
    Ok(attr)
}

/// Sets the policy and its parameters. `EPERM` for what wants CAP_SYS_NICE.
pub fn set_attributes(tid: Pid, attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr { size: 56, ..*attr };
    // SAFETY: the kernel reads the size that stands in the structure.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, tid.as_raw(), &raw const attr, 0) };
    Errno::result(result).map(drop)
}

/// The CPUs a thread may use: CPU n is bit n % 64 of word n / 64. As many words as this kernel has CPUs for, unlike nix's fixed
/// 1024.
pub fn affinity(tid: Pid) -> Result<Vec<u64>> {
    let mut words = vec![0u64; 16];
    loop {
        let bytes = words.len() * size_of::<u64>();
        // SAFETY: the kernel writes at most `bytes`.
        let result = unsafe { libc::syscall(libc::SYS_sched_getaffinity, tid.as_raw(), bytes, words.as_mut_ptr()) };
        match Errno::result(result) {
            // More CPUs than bits.
            Err(Errno::EINVAL) if words.len() < 1 << 16 => words.resize(words.len() * 2, 0),
            Err(errno) => return Err(errno),
            Ok(written) => {
                words.truncate(usize::try_from(written).map_err(|_| Errno::EOVERFLOW)?.div_ceil(size_of::<u64>()));
                return Ok(words);
            }
        }
    }
}

/// Sets the CPUs a thread may use. `EINVAL`: none of them is there, or allowed by its cpuset.
pub fn set_affinity(tid: Pid, words: &[u64]) -> Result<()> {
    let bytes = size_of_val(words);
    // SAFETY: the kernel reads `bytes` at `words`.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, tid.as_raw(), bytes, words.as_ptr()) };
    Errno::result(result).map(drop)
}

/// The core scheduling cookie of a thread, a hash of it, 0 for none. `EINVAL` on a kernel without core scheduling, `ENODEV` on a
/// machine whose cores have one thread.
pub fn core_cookie(tid: Pid) -> Result<u64> {
    // linux/prctl.h; PIDTYPE_PID
    const PR_SCHED_CORE: i32 = 62;
    const PR_SCHED_CORE_GET: i32 = 0;
    const ONE_THREAD: i32 = 0;
    let mut cookie = 0u64;
    // SAFETY: the kernel writes 8 bytes at `cookie`.
    let result = unsafe { libc::prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, tid.as_raw(), ONE_THREAD, &raw mut cookie) };
    Errno::result(result)?;
    Ok(cookie)
}

const IOPRIO_WHO_PROCESS: i32 = 1;

/// The I/O priority of a thread: class in bits 13 to 15, level below; 0 follows the nice value.
pub fn io_priority(tid: Pid) -> Result<i32> {
    // SAFETY: numbers.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, tid.as_raw()) };
    i32::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)
}

/// Sets the I/O priority of a thread.
pub fn set_io_priority(tid: Pid, priority: i32) -> Result<()> {
    // SAFETY: numbers.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, tid.as_raw(), priority) };
    Errno::result(result).map(drop)
}

/// The nice value of a thread, -20 to 19.
pub fn nice(tid: Pid) -> Result<i32> {
    // SAFETY: numbers. The raw call returns 20 - nice, so that it is never negative.
    let result = unsafe { libc::syscall(libc::SYS_getpriority, libc::PRIO_PROCESS, tid.as_raw()) };
    i32::try_from(20 - Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)
}

/// Sets the nice value of a thread.
pub fn set_nice(tid: Pid, nice: i32) -> Result<()> {
    // SAFETY: numbers.
    let result = unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, tid.as_raw(), nice) };
    Errno::result(result).map(drop)
}

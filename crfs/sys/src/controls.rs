//! What prctl(2) and mlockall(2) set for the calling thread or its address space, set and asked again.
//!
//! Source: prctl(2), mlockall(2), include/uapi/linux/prctl.h, v6.18.

use libc::c_ulong;
use nix::Result;
use nix::errno::Errno;

const PR_GET_THP_DISABLE: i32 = 42;
const PR_SET_THP_DISABLE: i32 = 41;
const PR_THP_DISABLE_EXCEPT_ADVISED: c_ulong = 2;
const PR_SET_MDWE: i32 = 65;
const PR_GET_MDWE: i32 = 66;
const PR_SET_MEMORY_MERGE: i32 = 67;
const PR_GET_MEMORY_MERGE: i32 = 68;
const PR_MCE_KILL_SET: c_ulong = 1;

/// An option that takes numbers alone.
fn numbers(option: i32, first: c_ulong, second: c_ulong) -> Result<i32> {
    let none: c_ulong = 0;
    // SAFETY: none of the options this file passes reads or writes memory.
    Errno::result(unsafe { libc::prctl(option, first, second, none, none) })
}

/// Has the calling thread keep its capabilities whatever becomes of its ids: SECBIT_NO_SETUID_FIXUP.
pub fn keep_capabilities() -> Result<()> {
    numbers(libc::PR_SET_SECUREBITS, 1 << 2, 0).map(drop)
}

/// Refuses memory that becomes executable: bit 0 (PR_MDWE_REFUSE_EXEC_GAIN), and bit 1 for children not to inherit it.
pub fn set_mdwe(bits: u32) -> Result<()> {
    numbers(PR_SET_MDWE, bits.into(), 0).map(drop)
}

/// What [`set_mdwe`] set.
pub fn mdwe() -> Result<i32> {
    numbers(PR_GET_MDWE, 0, 0)
}

/// Leaves huge pages to memory that was advised to have them. `EINVAL` before Linux 6.18.
pub fn set_huge_pages_if_advised() -> Result<()> {
    numbers(PR_SET_THP_DISABLE, 1, PR_THP_DISABLE_EXCEPT_ADVISED).map(drop)
}

/// 0 for huge pages as the machine is set, 1 for none, 3 for [`set_huge_pages_if_advised`].
pub fn huge_pages() -> Result<i32> {
    numbers(PR_GET_THP_DISABLE, 0, 0)
}

/// Lets the kernel merge pages of this address space with equal ones. `EINVAL` on a kernel that cannot (CONFIG_KSM).
pub fn set_memory_merge() -> Result<()> {
    numbers(PR_SET_MEMORY_MERGE, 1, 0).map(drop)
}

/// Whether [`set_memory_merge`] was called.
pub fn memory_merge() -> Result<bool> {
    Ok(numbers(PR_GET_MEMORY_MERGE, 0, 0)? == 1)
}

/// When this thread is told of a memory error: 0 late, 1 early, 2 as the machine is set.
pub fn set_memory_errors(when: u32) -> Result<()> {
    numbers(libc::PR_MCE_KILL, PR_MCE_KILL_SET, when.into()).map(drop)
}

/// What [`set_memory_errors`] set.
pub fn memory_errors() -> Result<i32> {
    numbers(libc::PR_MCE_KILL_GET, 0, 0)
}

/// Takes the time stamp counter from this thread: rdtsc, and what reads a clock by it, raises SIGSEGV.
pub fn forbid_tsc() -> Result<()> {
    numbers(libc::PR_SET_TSC, 2, 0).map(drop)
}

/// Whether this thread may use the time stamp counter.
pub fn may_use_tsc() -> Result<bool> {
    let mut mode: libc::c_int = 0;
    // SAFETY: the kernel writes one int.
    Errno::result(unsafe { libc::prctl(libc::PR_GET_TSC, &raw mut mode) })?;
    Ok(mode == 1)
}

/// Locks memory that is mapped from now on.
pub fn lock_future() -> Result<()> {
    // SAFETY: a number.
    Errno::result(unsafe { libc::mlockall(libc::MCL_FUTURE) }).map(drop)
}

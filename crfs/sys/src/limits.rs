//! prlimit64(2) on any process.
//!
//! Source: prlimit(2).

use libc::rlimit64;
use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// How many resources there are: numbers 0 (`RLIMIT_CPU`) to 15 (`RLIMIT_RTTIME`).
pub const COUNT: u32 = 16;
/// `RLIM64_INFINITY`
pub const INFINITY: u64 = u64::MAX;

/// A limit: what holds now, and how far it may be raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// `rlim_cur`
    pub soft: u64,
    /// `rlim_max`
    pub hard: u64,
}

fn prlimit(pid: Pid, resource: u32, new: Option<Limit>) -> Result<Limit> {
    let new = new.map(|limit| rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard });
    let new = new.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let mut old = rlimit64 { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `new` is null or one structure that is read, `old` one that is written.
    let result = unsafe { libc::syscall(libc::SYS_prlimit64, pid.as_raw(), resource, new, &raw mut old) };
    Errno::result(result)?;
    Ok(Limit { soft: old.rlim_cur, hard: old.rlim_max })
}

/// A limit of a process; `EINVAL` for a number that is no resource, `EPERM` for another user's process.
pub fn get(pid: Pid, resource: u32) -> Result<Limit> {
    prlimit(pid, resource, None)
}

/// Sets a limit and returns the old one. Raising the hard one wants CAP_SYS_RESOURCE, else `EPERM`.
pub fn set(pid: Pid, resource: u32, limit: Limit) -> Result<Limit> {
    prlimit(pid, resource, Some(limit))
}

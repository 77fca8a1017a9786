//! get_robust_list(2) of any thread.

use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// Where a thread told the kernel to find its robust mutexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RobustList {
    /// Address of `struct robust_list_head` in the task; 0 when none was set.
    pub head: u64,
    /// Size of that structure, 24 on this architecture.
    pub len: u64,
}

/// The robust list of a thread. `EPERM` without ptrace access to it, `ESRCH` when it is gone.
pub fn get(tid: Pid) -> Result<RobustList> {
    let mut list = RobustList { head: 0, len: 0 };
    // SAFETY: the kernel writes one pointer and one size, 8 bytes each.
    let result =
        unsafe { libc::syscall(libc::SYS_get_robust_list, tid.as_raw(), &raw mut list.head, &raw mut list.len) };
    Errno::result(result)?;
    Ok(list)
}

//! pidfds: a process held by a descriptor.
//!
//! Source: pidfd_open(2), pidfd_getfd(2), pidfd_send_signal(2); `include/uapi/linux/pidfd.h`, v6.18.

use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::c_long;
use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// `struct pidfd_info`, version 0: 64 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct RawInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    /// real, effective, saved and file system uid and gid
    credentials: [u32; 8],
    exit_code: i32,
}
const _: () = assert!(size_of::<RawInfo>() == 64);
const _: () = assert!(offset_of!(RawInfo, exit_code) == 60);

const INFO_PID: u64 = 1;
const INFO_CGROUPID: u64 = 1 << 2;
const INFO_EXIT: u64 = 1 << 3;

mod ioctl {
    nix::ioctl_readwrite!(get_info, 0xff, 11, super::RawInfo);
}

/// What [`info`] tells of a process. Each part is there only if the kernel could tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// Thread id, process id and parent in the caller's pid namespace; `None` once the process is reaped.
    pub pids: Option<(Pid, Pid, Pid)>,
    /// The id of its cgroup (the inode number of the directory).
    pub cgroup: Option<u64>,
    /// The wait status, as waitpid(2) encodes it, of a process that was reaped (6.15 and later).
    pub exit_status: Option<i32>,
}

fn owned(result: c_long) -> Result<OwnedFd> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A descriptor for a process, close-on-exec; with `thread` for one thread (`PIDFD_THREAD`, 6.9).
pub fn open(pid: Pid, thread: bool) -> Result<OwnedFd> {
    let flags = if thread { libc::O_EXCL } else { 0 };
    // SAFETY: two numbers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), flags) })
}

/// A descriptor, close-on-exec, for the process of this id, or for the thread where it is not that of a process.
pub fn open_any(tid: Pid) -> Result<OwnedFd> {
    match open(tid, false) {
        // Which of the two it is has changed with the versions of the kernel.
        Err(Errno::EINVAL | Errno::ENOENT) => open(tid, true),
        other => other,
    }
}

/// A duplicate, close-on-exec, of descriptor `fd` of the process. `EBADF`: it has none of that number.
pub fn getfd(pidfd: BorrowedFd<'_>, fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: three numbers.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })
}

/// Sends a signal; 0 only asks whether it could be sent.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let no_info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo is what kill(2) would make.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, no_info, 0) };
    Errno::result(result).map(drop)
}

/// What the kernel tells of the process behind a pidfd, also after it was reaped. `ESRCH` when nothing is known any more.
pub fn info(pidfd: BorrowedFd<'_>) -> Result<Info> {
    let mut raw = RawInfo { mask: INFO_PID | INFO_CGROUPID | INFO_EXIT, ..RawInfo::default() };
    // SAFETY: the size is part of the ioctl's number; the kernel writes no more than that.
    unsafe { ioctl::get_info(pidfd.as_raw_fd(), &raw mut raw) }?;
    let has = |bit| raw.mask & bit != 0;
    let pid = |raw: u32| Pid::from_raw(raw.cast_signed());
    Ok(Info {
        pids: has(INFO_PID).then(|| (pid(raw.pid), pid(raw.tgid), pid(raw.ppid))),
        cgroup: has(INFO_CGROUPID).then_some(raw.cgroupid),
        exit_status: has(INFO_EXIT).then_some(raw.exit_code),
    })
}

//! kcmp(2): whether two tasks share a kernel object.
//!
//! Source: kcmp(2); `include/uapi/linux/kcmp.h` and `kernel/kcmp.c`, v6.18.

use std::cmp::Ordering;
use std::os::fd::RawFd;

use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// The objects that can be compared as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Object {
    /// Address space.
    Vm = 1,
    /// Table of descriptors.
    Files = 2,
    /// Root, working directory, umask.
    Fs = 3,
    /// Table of signal actions.
    Sighand = 4,
    /// I/O context.
    Io = 5,
    /// List of System V semaphore adjustments; two tasks without one are equal.
    Sysvsem = 6,
}

/// How two objects compare. `Less` and `Greater` make an order that holds until the next boot, so that things can be sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// One and the same object.
    Equal,
    /// Different, and the first sorts before the second.
    Less,
    /// Different, and the first sorts after the second.
    Greater,
    /// Different, with no order.
    Unequal,
}

impl Comparison {
    /// The order, if there is one.
    #[must_use]
    pub fn ordering(self) -> Option<Ordering> {
        match self {
            Self::Equal => Some(Ordering::Equal),
            Self::Less => Some(Ordering::Less),
            Self::Greater => Some(Ordering::Greater),
            Self::Unequal => None,
        }
    }
}

fn kcmp(a: Pid, b: Pid, kind: i32, index_a: u64, index_b: u64) -> Result<Comparison> {
    // SAFETY: numbers only; KCMP_EPOLL_TFD, which takes a pointer, does not come through here.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, a.as_raw(), b.as_raw(), kind, index_a, index_b) };
    Ok(match Errno::result(result)? {
        0 => Comparison::Equal,
        1 => Comparison::Less,
        2 => Comparison::Greater,
        _ => Comparison::Unequal,
    })
}

/// Compares an object of two tasks. `ESRCH`: one is gone; `EPERM`: no ptrace access to one.
pub fn compare(object: Object, a: Pid, b: Pid) -> Result<Comparison> {
    kcmp(a, b, object as i32, 0, 0)
}

/// Compares the open file descriptions behind descriptor `fd_a` of task `a` and `fd_b` of task `b`. `EBADF`: not open.
pub fn compare_files(a: Pid, fd_a: RawFd, b: Pid, fd_b: RawFd) -> Result<Comparison> {
    let index = |fd: RawFd| u64::try_from(fd).map_err(|_| Errno::EBADF);
    kcmp(a, b, 0, index(fd_a)?, index(fd_b)?)
}

/// `struct kcmp_epoll_slot`
#[repr(C)]
struct EpollSlot {
    efd: u32,
    tfd: u32,
    toff: u32,
}
const _: () = assert!(size_of::<EpollSlot>() == 12);

/// Compares the description behind `fd` of task `a` with the `nth` target (from 0) registered as number `target` in the epoll
/// descriptor `epoll` of task `b`. It also finds a target whose own descriptor was closed. `ENOENT`: no such target.
pub fn compare_epoll_target(a: Pid, fd: RawFd, b: Pid, epoll: RawFd, target: RawFd, nth: u32) -> Result<Comparison> {
    let number = |fd: RawFd| u32::try_from(fd).map_err(|_| Errno::EBADF);
    let slot = EpollSlot { efd: number(epoll)?, tfd: number(target)?, toff: nth };
    let fd = number(fd)?;
    // SAFETY: the last argument points to a slot of ours, which the kernel only reads. 7 is KCMP_EPOLL_TFD.
    let result = unsafe { libc::syscall(libc::SYS_kcmp, a.as_raw(), b.as_raw(), 7, u64::from(fd), &raw const slot) };
    Ok(match Errno::result(result)? {
        0 => Comparison::Equal,
        1 => Comparison::Less,
        2 => Comparison::Greater,
        _ => Comparison::Unequal,
    })
}

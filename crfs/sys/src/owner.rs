//! Who is signalled about an open file description, beyond what nix covers.
//!
//! Source: fcntl(2); `fs/fcntl.c`, v6.18.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::Result;
use nix::errno::Errno;

// include/uapi/asm-generic/fcntl.h
const F_GETSIG: libc::c_int = 11;
/// Takes a pointer to two ints, kind and id.
pub const F_SETOWN_EX: libc::c_int = 15;
const F_GETOWN_EX: libc::c_int = 16;
const F_GETOWNER_UIDS: libc::c_int = 17;
/// Takes the signal's number.
pub const F_SETSIG: libc::c_int = 10;
/// A thread.
pub const F_OWNER_TID: libc::c_int = 0;
/// A process.
pub const F_OWNER_PID: libc::c_int = 1;
/// A process group.
pub const F_OWNER_PGRP: libc::c_int = 2;

/// `struct f_owner_ex`
#[repr(C)]
struct OwnerEx {
    kind: libc::c_int,
    pid: libc::pid_t,
}
const _: () = assert!(size_of::<OwnerEx>() == 8);

/// What an open file description knows of its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `F_OWNER_TID`, `F_OWNER_PID` or `F_OWNER_PGRP`.
    pub kind: i32,
    /// The id in the caller's pid namespace; 0 where there is no owner, and where it has ended.
    pub id: i32,
    /// Real user id of whoever set it; 0 where there is none.
    pub uid: u32,
    /// Effective user id of whoever set it; 0 where there is none.
    pub euid: u32,
    /// F_SETSIG; 0 for SIGIO.
    pub signal: i32,
}

/// F_GETOWN_EX, F_GETSIG, F_GETOWNER_UIDS. `EBADF` for one that only names a place (O_PATH).
pub fn get(fd: BorrowedFd<'_>) -> Result<Owner> {
    let mut owner = OwnerEx { kind: 0, pid: 0 };
    // SAFETY: the kernel writes one f_owner_ex.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWN_EX, &raw mut owner) })?;
    // SAFETY: a number in, a number out.
    let signal = Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETSIG) })?;
    let mut users: [libc::uid_t; 2] = [0; 2];
    if owner.pid != 0 {
        // SAFETY: the kernel writes two uid_t.
        Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_GETOWNER_UIDS, users.as_mut_ptr()) })?;
    }
    Ok(Owner { kind: owner.kind, id: owner.pid, uid: users[0], euid: users[1], signal })
}

/// F_SETOWN_EX, by the caller's user and in its pid namespace.
pub fn set(fd: BorrowedFd<'_>, kind: i32, id: i32) -> Result<()> {
    let owner = OwnerEx { kind, pid: id };
    // SAFETY: the kernel reads one f_owner_ex.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETOWN_EX, &raw const owner) }).map(drop)
}

/// F_SETSIG
pub fn set_signal(fd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a number.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, signal) }).map(drop)
}

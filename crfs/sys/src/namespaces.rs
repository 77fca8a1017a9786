//! Namespace flags that nix does not name, and what an open namespace tells of itself; setns(2) and unshare(2) themselves are in
//! [`nix::sched`].
//!
//! Source: ioctl_nsfs(2); `include/uapi/linux/nsfs.h`, `include/uapi/linux/pidfd.h`, v6.18.

use nix::Result;
use nix::sched::CloneFlags;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// A new time namespace. With clone3(2) the child is born in it; unshare(2) only prepares it for the next child. It stands in the
/// byte that clone(2) uses for the exit signal, so clone(2) cannot take it.
pub const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

mod ioctl {
    const NSIO: u8 = 0xb7;
    nix::ioctl_none!(ns_get_userns, NSIO, 1);
    nix::ioctl_none!(ns_get_parent, NSIO, 2);
    // Older than the scheme that puts direction and size into an ioctl's number.
    nix::ioctl_read_bad!(ns_get_owner_uid, nix::request_code_none!(NSIO, 4), libc::uid_t);

    const PIDFS: u8 = 0xff;
    // The kernel looks whether the argument is 0.
    nix::ioctl_write_int_bad!(pidfd_get_user_namespace, nix::request_code_none!(PIDFS, 9));
    nix::ioctl_write_int_bad!(pidfd_get_pid_for_children_namespace, nix::request_code_none!(PIDFS, 6));
}

/// The user namespace that owns a namespace: NS_GET_USERNS.
///
/// # Errors
/// `EPERM` for one that the caller's does not lie above.
pub fn owner(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: takes no argument; the kernel answers with a new descriptor that nobody else owns.
    unsafe { ioctl::ns_get_userns(namespace.as_raw_fd()).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// The user who made a user namespace, as the caller's knows him: NS_GET_OWNER_UID.
///
/// # Errors
/// `EINVAL` for namespaces of other types.
pub fn owner_uid(namespace: BorrowedFd<'_>) -> Result<u32> {
    let mut uid = 0;
    // SAFETY: the kernel writes one uid_t.
    unsafe { ioctl::ns_get_owner_uid(namespace.as_raw_fd(), &raw mut uid) }?;
    Ok(uid)
}

/// The namespace that a pid or user namespace lies in: NS_GET_PARENT.
///
/// # Errors
/// `EPERM` for one that the caller's does not lie above, `EINVAL` for namespaces of other types.
pub fn parent(namespace: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: takes no argument; the kernel answers with a new descriptor that nobody else owns.
    unsafe { ioctl::ns_get_parent(namespace.as_raw_fd()).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// The pid namespace that the children of a process are born into, also before the first of them, when no file of /proc leads to it:
/// PIDFD_GET_PID_FOR_CHILDREN_NAMESPACE.
///
/// # Errors
/// `ENOTTY` or `EINVAL` before Linux 6.11, `ESRCH` when the process is gone.
pub fn of_children(pidfd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: takes no argument; the kernel answers with a new descriptor that nobody else owns.
    unsafe { ioctl::pidfd_get_pid_for_children_namespace(pidfd.as_raw_fd(), 0).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// The user namespace that a process is in: PIDFD_GET_USER_NAMESPACE.
///
/// # Errors
/// `ENOTTY` or `EINVAL` before Linux 6.11, `ESRCH` when the process is gone.
pub fn user_of(pidfd: BorrowedFd<'_>) -> Result<OwnedFd> {
    // SAFETY: takes no argument; the kernel answers with a new descriptor that nobody else owns.
    unsafe { ioctl::pidfd_get_user_namespace(pidfd.as_raw_fd(), 0).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

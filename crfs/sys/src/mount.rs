//! Mounts by descriptors, which nix does not cover.
//!
//! Source: open_tree(2), move_mount(2), statx(2), fsopen(2), fsconfig(2), fsmount(2) (Linux 5.2); `include/uapi/linux/mount.h`, `fs/namespace.c`, v6.18.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null;

use nix::Result;
use nix::errno::Errno;

const FSOPEN_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_SET_FD: u32 = 5;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSMOUNT_CLOEXEC: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x4;
const MOVE_MOUNT_SET_GROUP: u32 = 0x100;
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// The number of the mount that a descriptor lies on, which no other mount gets before the machine is started anew: a later one has a higher
/// number. `EOPNOTSUPP` before Linux 6.8.
pub fn unique_id(file: BorrowedFd<'_>) -> Result<u64> {
    // SAFETY: a structure of numbers, for which zero is a value.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty string, and a structure that the kernel writes.
    let result = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &raw mut found)
    };
    Errno::result(result)?;
    if found.stx_mask & STATX_MNT_ID_UNIQUE == 0 { Err(Errno::EOPNOTSUPP) } else { Ok(found.stx_mnt_id) }
}

/// A private copy of the mount at a path below `directory`, attached nowhere and without what is mounted on it. It is gone with its
/// last descriptor. `EINVAL`: the mount belongs to another mount namespace than the caller's.
pub fn detached_copy(directory: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    // SAFETY: a string that ends in NUL.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, directory.as_raw_fd(), path.as_ptr(), flags) })
}

/// Mounts a file system of a type without options, attached nowhere: the one that the caller's namespaces have, where it belongs to them.
/// It is gone with its last descriptor. `ENODEV`: the kernel has no such type.
pub fn detached(kind: &CStr) -> Result<OwnedFd> {
    let context = context(kind)?;
    create(&context)
}

/// Mounts a new file system of a type, attached nowhere, with options as mount(2) takes them. One of /proc shows the pid namespace `pids`, if
/// that is given.
///
/// # Errors
/// `EINVAL` for options that it does not know, and with `pids` before Linux 6.17.
pub fn new(kind: &CStr, source: &[u8], options: &[u8], pids: Option<BorrowedFd<'_>>) -> Result<OwnedFd> {
    let context = context(kind)?;
    if let Some(pids) = pids {
        configure(&context, FSCONFIG_SET_FD, b"pidns", None, pids.as_raw_fd())?;
    }
    configure(&context, FSCONFIG_SET_STRING, b"source", Some(source), 0)?;
    for option in options.split(|&byte| byte == b',').filter(|option| !option.is_empty()) {
        match option.iter().position(|&byte| byte == b'=') {
            Some(at) => configure(&context, FSCONFIG_SET_STRING, &option[..at], Some(&option[at + 1..]), 0)?,
            None => configure(&context, FSCONFIG_SET_FLAG, option, None, 0)?,
        }
    }
    create(&context)
}

fn context(kind: &CStr) -> Result<OwnedFd> {
    // SAFETY: a string that ends in NUL, and a number.
    owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

fn configure(context: &OwnedFd, command: u32, key: &[u8], value: Option<&[u8]>, number: RawFd) -> Result<()> {
    let key = CString::new(key).map_err(|_| Errno::EINVAL)?;
    let value = value.map(CString::new).transpose().map_err(|_| Errno::EINVAL)?;
    let value = value.as_ref().map_or(null(), |value| value.as_ptr());
    // SAFETY: strings that end in NUL, or none where the command takes none, and numbers.
    let done = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, key.as_ptr(), value, number) };
    Errno::result(done).map(drop)
}

fn create(context: &OwnedFd) -> Result<OwnedFd> {
    // SAFETY: this command takes neither key nor value.
    let created = unsafe {
        libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null::<u8>(), null::<u8>(), 0)
    };
    Errno::result(created)?;
    // SAFETY: numbers.
    owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })
}

fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the private mount `to` a peer of the mount that `from` lies on, and a slave of the same master. `EINVAL`: it shows what that does
/// not.
pub fn join_peers(from: BorrowedFd<'_>, to: &Path) -> Result<()> {
    move_mount(from, to, MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_SET_GROUP)
}

/// Attaches a mount that is attached nowhere.
pub fn attach(mount: BorrowedFd<'_>, to: &Path) -> Result<()> {
    move_mount(mount, to, MOVE_MOUNT_F_EMPTY_PATH)
}

fn move_mount(from: BorrowedFd<'_>, to: &Path, flags: u32) -> Result<()> {
    let to = CString::new(to.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: two strings that end in NUL.
    let result = unsafe {
        libc::syscall(libc::SYS_move_mount, from.as_raw_fd(), c"".as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags)
    };
    Errno::result(result).map(drop)
}

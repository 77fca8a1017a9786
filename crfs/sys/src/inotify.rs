//! inotify, by the numbers of its watches, which nix keeps to itself.
//!
//! Source: inotify(7); `fs/notify/inotify/inotify_user.c`, include/uapi/linux/inotify.h, v6.18.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::Result;
use nix::errno::Errno;

mod ioctl {
    // _IOW('I', 0, __s32): the number itself, not its address.
    nix::ioctl_write_int!(set_next_wd, b'I', 0);
    nix::ioctl_read_bad!(fionread, libc::FIONREAD, libc::c_int);
}

/// Bytes of an event without a name.
pub const EVENT_SIZE: usize = size_of::<libc::inotify_event>();

/// An instance without watches, close-on-exec. `EMFILE`: the user has fs.inotify.max_user_instances.
pub fn create() -> Result<OwnedFd> {
    // SAFETY: a number.
    let fd: RawFd = Errno::result(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds a watch, or changes that of the same inode, and returns its number. `ENOSPC`: the user has fs.inotify.max_user_watches.
pub fn add_watch(instance: BorrowedFd<'_>, path: &Path, mask: u32) -> Result<i32> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a string that ends in NUL, and numbers.
    Errno::result(unsafe { libc::inotify_add_watch(instance.as_raw_fd(), path.as_ptr(), mask) })
}

/// Removes a watch, which queues an event that says so.
pub fn remove_watch(instance: BorrowedFd<'_>, wd: i32) -> Result<()> {
    // SAFETY: numbers.
    Errno::result(unsafe { libc::inotify_rm_watch(instance.as_raw_fd(), wd) }).map(drop)
}

/// Lets the next watch have this number, or the next that is free. `EINVAL` below 1; `ENOTTY` without
/// CONFIG_CHECKPOINT_RESTORE.
pub fn set_next_wd(instance: BorrowedFd<'_>, wd: i32) -> Result<()> {
    let wd = u64::try_from(wd).map_err(|_| Errno::EINVAL)?;
    // SAFETY: numbers.
    unsafe { ioctl::set_next_wd(instance.as_raw_fd(), wd) }.map(drop)
}

/// Bytes of events that wait to be read.
pub fn queued(instance: BorrowedFd<'_>) -> Result<usize> {
    let mut bytes = 0;
    // SAFETY: the kernel writes one int.
    unsafe { ioctl::fionread(instance.as_raw_fd(), &raw mut bytes) }?;
    usize::try_from(bytes).map_err(|_| Errno::EOVERFLOW)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_watch_gets_the_number_that_was_set() {
        let directory = std::env::temp_dir();
        let instance = create().unwrap();
        set_next_wd(instance.as_fd(), 77).unwrap();
        assert_eq!(add_watch(instance.as_fd(), &directory, libc::IN_DELETE_SELF), Ok(77));
        assert_eq!(queued(instance.as_fd()), Ok(0));
        remove_watch(instance.as_fd(), 77).unwrap();
        assert_eq!(queued(instance.as_fd()), Ok(EVENT_SIZE));
        assert_eq!(set_next_wd(instance.as_fd(), 0), Err(Errno::EINVAL));
    }
}

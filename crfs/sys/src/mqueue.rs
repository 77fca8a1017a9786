//! POSIX message queues of the caller's ipc namespace, also those that no descriptor leads to.
//!
//! The kernel lists them in a file system of type `mqueue`; it is mounted detached, seen by nobody else and gone with its
//! descriptor.
//!
//! Source: mq_overview(7); fsopen(2), fsconfig(2), fsmount(2) (Linux 5.2); `ipc/mqueue.c`, v6.18.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;

const FSOPEN_CLOEXEC: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSMOUNT_CLOEXEC: u32 = 1;

fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The names of all queues, without their leading slash. Empty on kernels without message queues.
///
/// `EPERM` without CAP_SYS_ADMIN in the namespaces concerned.
pub fn list() -> Result<Vec<OsString>> {
    // SAFETY: a string constant and a number.
    let context = match owned(unsafe { libc::syscall(libc::SYS_fsopen, c"mqueue".as_ptr(), FSOPEN_CLOEXEC) }) {
        Err(Errno::ENODEV | Errno::ENOSYS) => return Ok(Vec::new()),
        other => other?,
    };
    let null: *const u8 = std::ptr::null();
    // SAFETY: this command takes neither key nor value.
    let created = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) };
    Errno::result(created)?;
    // SAFETY: numbers.
    let mount = owned(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0) })?;
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", mount.as_raw_fd())).map_err(errno)?;
    entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(errno)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_new_queue_is_listed() {
        let name = format!("crfs-sys-test-{}", std::process::id());
        let path = std::ffi::CString::new(format!("/{name}")).expect("no NUL");
        // SAFETY: a C string and numbers; a null attribute asks for the defaults.
        let queue = unsafe {
            libc::mq_open(path.as_ptr(), libc::O_CREAT | libc::O_RDWR, 0o600, std::ptr::null::<libc::mq_attr>())
        };
        assert!(queue >= 0, "{}", std::io::Error::last_os_error());
        let listed = super::list();
        // SAFETY: the descriptor and the name just made.
        let (closed, unlinked) = unsafe { (libc::mq_close(queue), libc::mq_unlink(path.as_ptr())) };
        assert_eq!((closed, unlinked), (0, 0));
        let is = |names: &Vec<std::ffi::OsString>| names.iter().any(|listed| *listed == *name);
        assert!(is(&listed.expect("listed")));
        assert!(!is(&super::list().expect("listed")));
    }
}

//! POSIX message queues of the caller's ipc namespace, also those that no descriptor leads to. A queue is an owned descriptor here,
//! which nix's own type is not.
//!
//! The kernel lists them in a file system of type `mqueue`; it is mounted detached, seen by nobody else and gone with its
//! descriptor. Names have no leading slash here, as the kernel's calls take them.
//!
//! Source: mq_overview(7); `ipc/mqueue.c`, v6.18.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null;
use std::time::Duration;

use nix::Result;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;

/// How much a queue holds: what mq_open(3) takes of `struct mq_attr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Messages.
    pub capacity: u32,
    /// Bytes of the longest one.
    pub message_size: u32,
}

fn owned(result: libc::c_long) -> Result<OwnedFd> {
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A directory in which all queues stand by their names. None on kernels without message queues.
///
/// `EPERM` without CAP_SYS_ADMIN in the namespaces concerned.
pub fn mount() -> Result<Option<OwnedFd>> {
    match crate::mount::detached(c"mqueue") {
        Err(Errno::ENODEV | Errno::ENOSYS) => Ok(None),
        other => other.map(Some),
    }
}

/// Opens a queue, always close-on-exec; `flags` are those of open(2). O_CLOEXEC among them would stay with the description, and hide in
/// fdinfo that a descriptor of it is no longer so.
pub fn open(name: &CStr, flags: i32) -> Result<OwnedFd> {
    // SAFETY: a string that ends in NUL, numbers, and no attributes.
    owned(unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0, null::<libc::mq_attr>()) })
}

/// Makes a queue that only root may use, and opens it for reading and writing.
///
/// `EEXIST` when there is one of that name; `EINVAL` above the limits of the namespace, `ENOSPC` when it has
/// /proc/sys/fs/mqueue/queues_max, without CAP_SYS_RESOURCE; `EMFILE` when the user's queues would have more than RLIMIT_MSGQUEUE bytes.
pub fn create(name: &CStr, attributes: Attributes) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_EXCL;
    // SAFETY: a structure of numbers, for which all zeros is a value.
    let mut attr: libc::mq_attr = unsafe { std::mem::zeroed() };
    attr.mq_maxmsg = attributes.capacity.into();
    attr.mq_msgsize = attributes.message_size.into();
    // SAFETY: a string that ends in NUL, numbers, and a structure that is read.
    owned(unsafe { libc::syscall(libc::SYS_mq_open, name.as_ptr(), flags, 0o600, &raw const attr) })
}

/// Takes the name of a queue away; it lives on as long as it is open.
pub fn unlink(name: &CStr) -> Result<()> {
    // SAFETY: a string that ends in NUL.
    Errno::result(unsafe { libc::syscall(libc::SYS_mq_unlink, name.as_ptr()) }).map(drop)
}

/// How much a queue holds.
pub fn attributes(queue: BorrowedFd<'_>) -> Result<Attributes> {
    // SAFETY: a structure of numbers, for which all zeros is a value.
    let mut attr: libc::mq_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes one mq_attr.
    Errno::result(unsafe { libc::mq_getattr(queue.as_raw_fd(), &raw mut attr) })?;
    let number = |value: libc::c_long| u32::try_from(value).map_err(|_| Errno::EOVERFLOW);
    Ok(Attributes { capacity: number(attr.mq_maxmsg)?, message_size: number(attr.mq_msgsize)? })
}

/// Sends a message. `EAGAIN` when the queue is full and the descriptor says O_NONBLOCK.
pub fn send(queue: BorrowedFd<'_>, message: &[u8], priority: u32) -> Result<()> {
    // SAFETY: the kernel reads so many bytes of the message.
    Errno::result(unsafe { libc::mq_send(queue.as_raw_fd(), message.as_ptr().cast(), message.len(), priority) })
        .map(drop)
}

/// Waits for room for a message until CLOCK_REALTIME shows `until`: `ETIMEDOUT` then.
pub fn send_until(queue: BorrowedFd<'_>, message: &[u8], until: Duration) -> Result<()> {
    let until = TimeSpec::from(until);
    // SAFETY: the kernel reads so many bytes of the message, and a timespec.
    Errno::result(unsafe {
        libc::mq_timedsend(queue.as_raw_fd(), message.as_ptr().cast(), message.len(), 0, until.as_ref())
    })
    .map(drop)
}

/// Takes the next message, with its priority. `EAGAIN` when there is none and the descriptor says O_NONBLOCK.
pub fn receive(queue: BorrowedFd<'_>) -> Result<(Vec<u8>, u32)> {
    let mut message = vec![0u8; attributes(queue)?.message_size as usize];
    let mut priority = 0;
    // SAFETY: the kernel writes at most as many bytes as the message has room for, and one number.
    let length = Errno::result(unsafe {
        libc::mq_receive(queue.as_raw_fd(), message.as_mut_ptr().cast(), message.len(), &raw mut priority)
    })?;
    message.truncate(usize::try_from(length).unwrap_or(0));
    Ok((message, priority))
}

/// Waits for a message until CLOCK_REALTIME shows `until`: `ETIMEDOUT` then.
pub fn receive_until(queue: BorrowedFd<'_>, until: Duration) -> Result<Vec<u8>> {
    let until = TimeSpec::from(until);
    let mut message = vec![0u8; attributes(queue)?.message_size as usize];
    // SAFETY: the kernel writes at most as many bytes as the message has room for, and reads a timespec.
    let length = Errno::result(unsafe {
        let (queue, bytes) = (queue.as_raw_fd(), message.as_mut_ptr().cast());
        libc::mq_timedreceive(queue, bytes, message.len(), std::ptr::null_mut(), until.as_ref())
    })?;
    message.truncate(usize::try_from(length).unwrap_or(0));
    Ok(message)
}

/// Asks for a signal with a value when a message comes into the empty queue; for none (SIGEV_NONE) without one; with `how` None nothing
/// is asked for any more. `EBUSY` when somebody else has asked.
pub fn notify(queue: BorrowedFd<'_>, how: Option<Option<(i32, usize)>>) -> Result<()> {
    // SAFETY: a structure for which all zeros is a value.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_NONE;
    if let Some(Some((signal, value))) = how {
        event.sigev_notify = libc::SIGEV_SIGNAL;
        event.sigev_signo = signal;
        event.sigev_value.sival_ptr = std::ptr::without_provenance_mut(value);
    }
    let event = how.map_or(null(), |_| &raw const event);
    // SAFETY: the kernel reads one sigevent, or none.
    Errno::result(unsafe { libc::syscall(libc::SYS_mq_notify, queue.as_raw_fd(), event) }).map(drop)
}

/// Asks for a cookie over a netlink socket when a message comes into the empty queue, as the C library does for SIGEV_THREAD. The last byte
/// is 1 then, or 2 when nothing is asked for any more.
///
/// # Errors
/// As [`notify`]; `EBADF`, `ENOTSOCK` for what is no netlink socket.
pub fn notify_over(queue: BorrowedFd<'_>, socket: BorrowedFd<'_>, cookie: &[u8; 32]) -> Result<()> {
    // SAFETY: a structure for which all zeros is a value.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD;
    event.sigev_signo = socket.as_raw_fd();
    event.sigev_value.sival_ptr = cookie.as_ptr().cast_mut().cast();
    // SAFETY: the kernel reads one sigevent, and the cookie that it points to.
    Errno::result(unsafe { libc::syscall(libc::SYS_mq_notify, queue.as_raw_fd(), &raw const event) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::fd::AsFd;

    #[test]
    fn a_new_queue_is_listed_until_it_is_unlinked() {
        let name = format!("crfs-sys-test-{}", std::process::id());
        let path = CString::new(name.clone()).expect("no NUL");
        let asked = Attributes { capacity: 2, message_size: 64 };
        let queue = create(&path, asked).expect("made");
        let listed = || {
            let mount = mount().expect("mounted").expect("a kernel with queues");
            let entries = std::fs::read_dir(format!("/proc/self/fd/{}", mount.as_raw_fd())).expect("listed");
            entries.flatten().any(|entry| entry.file_name() == *name)
        };
        let (before, opened) = (listed(), open(&path, libc::O_RDWR));
        unlink(&path).expect("unlinked");
        assert!(before && !listed());
        let opened = opened.expect("opened");
        assert_eq!(attributes(opened.as_fd()), Ok(asked));
        send(queue.as_fd(), b"low", 1).and_then(|()| send(queue.as_fd(), b"high", 2)).expect("sent");
        assert_eq!(receive(opened.as_fd()), Ok((b"high".to_vec(), 2)));
        assert_eq!(receive(opened.as_fd()), Ok((b"low".to_vec(), 1)));
        assert_eq!(notify(queue.as_fd(), Some(None)), Ok(()));
        assert_eq!(notify(queue.as_fd(), Some(None)), Err(Errno::EBUSY));
    }
}

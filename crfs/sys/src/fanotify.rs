//! fanotify, with the flags that nix does not know.
//!
//! Source: fanotify_init(2), fanotify_mark(2), capget(2); `fs/notify/fanotify/fanotify_user.c`, include/uapi/linux/fanotify.h, v6.18.

use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::Result;
use nix::errno::Errno;

/// Bytes of an event before what it says of files and processes.
pub const EVENT_SIZE: usize = size_of::<libc::fanotify_event_metadata>();

/// A mark of an inode with this flag does not keep it in memory.
pub const MARK_EVICTABLE: u32 = 0x200;
/// The ignore mask of a mark, with flags that mean what they mean in its mask.
pub const MARK_IGNORE: u32 = 0x400;

/// A group without marks. `flags` are FAN_ flags, `event_flags` those of the descriptors that come with events. `EMFILE`: the user has
/// fs.fanotify.max_user_groups.
pub fn create(flags: u32, event_flags: u32) -> Result<OwnedFd> {
    // SAFETY: numbers.
    let fd: RawFd = Errno::result(unsafe { libc::fanotify_init(flags, event_flags) })?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The same as a user without privileges gets it: no event of it names a process of others. `EPERM` for flags that such a user may not ask
/// for.
pub fn create_unprivileged(flags: u32, event_flags: u32) -> Result<OwnedFd> {
    let own = capabilities()?;
    let mut fewer = own;
    fewer[0].effective &= !CAP_SYS_ADMIN;
    set_capabilities(fewer)?;
    let created = create(flags, event_flags);
    set_capabilities(own)?;
    created
}

/// Adds to a mark, or makes one. `flags` are FAN_MARK_ flags but FAN_MARK_ADD. `ENOSPC`: the user has fs.fanotify.max_user_marks.
pub fn add_mark(group: BorrowedFd<'_>, flags: u32, mask: u64, path: &Path) -> Result<()> {
    mark(group, libc::FAN_MARK_ADD | flags, mask, path)
}

/// Removes from a mark, and the mark with its last bit.
pub fn remove_mark(group: BorrowedFd<'_>, flags: u32, mask: u64, path: &Path) -> Result<()> {
    mark(group, libc::FAN_MARK_REMOVE | flags, mask, path)
}

fn mark(group: BorrowedFd<'_>, flags: u32, mask: u64, path: &Path) -> Result<()> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: a string that ends in NUL, and numbers.
    let result = unsafe { libc::fanotify_mark(group.as_raw_fd(), flags, mask, libc::AT_FDCWD, path.as_ptr()) };
    Errno::result(result).map(drop)
}

/// How many events wait to be read.
pub fn queued(group: BorrowedFd<'_>) -> Result<usize> {
    // FIONREAD counts the part that all events have (`fanotify_ioctl`).
    crate::inotify::queued(group).map(|bytes| bytes / EVENT_SIZE)
}

/// An event.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub mask: u64,
    /// Who did it, 0 for nobody who is to be known.
    pub pid: i32,
    /// What it happened to, unless the group names that by handles.
    pub file: Option<OwnedFd>,
    /// Who did it, where the group has FAN_REPORT_PIDFD.
    pub process: Option<OwnedFd>,
    /// The name in its directory, where the group has FAN_REPORT_NAME.
    pub name: Option<Vec<u8>>,
}

/// Reads as many events as fit into so many bytes. `EINVAL`: not one fits. `EPROTO`: they are not laid out as documented.
pub fn read(group: BorrowedFd<'_>, room: usize) -> Result<Vec<Event>> {
    let mut bytes = vec![0; room];
    let length = nix::unistd::read(group, &mut bytes)?;
    let mut rest = bytes.get(..length).unwrap_or_default();
    let mut events = Vec::new();
    while !rest.is_empty() {
        let length = word(rest, 0).and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|&length| length >= EVENT_SIZE).ok_or(Errno::EPROTO)?;
        let (bytes, next) = rest.split_at_checked(length).ok_or(Errno::EPROTO)?;
        events.push(event(bytes).ok_or(Errno::EPROTO)?);
        rest = next;
    }
    Ok(events)
}

/// From `struct fanotify_event_metadata` (length, 4 bytes, mask, descriptor, pid) and what is behind it: a type, a byte, a length of 2 bytes,
/// and content.
fn event(bytes: &[u8]) -> Option<Event> {
    const DFID_NAME: u8 = 2;
    const PIDFD: u8 = 4;
    let mask = u64::from(word(bytes, 8)?.cast_unsigned()) | u64::from(word(bytes, 12)?.cast_unsigned()) << 32;
    let mut event = Event { mask, pid: word(bytes, 20)?, file: owned(word(bytes, 16)?), process: None, name: None };
    let mut infos = &bytes[EVENT_SIZE..];
    while let [kind, _, low, high, ..] = *infos {
        let (info, next) = infos.split_at_checked(usize::from(u16::from_ne_bytes([low, high])).max(4))?;
        match kind {
            PIDFD => event.process = owned(word(info, 4)?),
            // Of the file system 8 bytes, of the handle its length and its type, and the handle.
            DFID_NAME => {
                let name = info.get(20 + usize::try_from(word(info, 12)?).ok()?..)?;
                event.name = name.split(|&byte| byte == 0).next().map(<[u8]>::to_vec);
            }
            _ => {}
        }
        infos = next;
    }
    Some(event)
}

fn word(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..at + 4).map(|word| i32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

/// A descriptor that came with an event; FAN_NOFD and errors are none.
fn owned(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: the kernel just made this descriptor for us.
    (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

const CAP_SYS_ADMIN: u32 = 1 << 21;
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`, of which version 3 has two: the low 32 capabilities, and the others.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Capabilities {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}
const _: () = assert!(size_of::<[Capabilities; 2]>() == 24);

fn capabilities() -> Result<[Capabilities; 2]> {
    let mut header = Header { version: CAPABILITY_VERSION, pid: 0 };
    let mut data = [Capabilities::default(); 2];
    // SAFETY: a header of the version that has two structures, which the kernel writes.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut data) })?;
    Ok(data)
}

fn set_capabilities(data: [Capabilities; 2]) -> Result<()> {
    let mut header = Header { version: CAPABILITY_VERSION, pid: 0 };
    // SAFETY: a header of the version that has two structures, which the kernel reads.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, &raw const data) }).map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_mark_is_added_and_removed() {
        let directory = std::env::temp_dir();
        let group = create(libc::FAN_CLOEXEC, 0).unwrap();
        add_mark(group.as_fd(), 0, libc::FAN_CREATE, &directory).unwrap_err();
        add_mark(group.as_fd(), 0, libc::FAN_ACCESS, &directory).unwrap();
        assert_eq!(queued(group.as_fd()), Ok(0));
        remove_mark(group.as_fd(), 0, libc::FAN_ACCESS, &directory).unwrap();
        assert_eq!(remove_mark(group.as_fd(), 0, libc::FAN_ACCESS, &directory), Err(Errno::ENOENT));
    }

    #[test]
    fn without_privileges_only_for_a_moment() {
        assert_eq!(create_unprivileged(0, 0).map(drop), Err(Errno::EPERM));
        create_unprivileged(libc::FAN_REPORT_FID, 0).unwrap();
        create(0, 0).unwrap();
    }
}

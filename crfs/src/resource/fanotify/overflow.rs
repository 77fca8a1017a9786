//! The one event that can be put into a queue.

use crate::failure::{Doing, Failure, Kind};
use crfs_sys::fanotify;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;

/// Events that are made between two looks at the queue.
const BATCH: usize = 1024;
/// Each event takes a file while the queue is filled.
const MOST: usize = 1 << 20;
/// Bytes by which events differ in length, and that no event of ours has.
const EVENT_STEP: usize = 4;
const MOST_OF_EVENT: usize = 4096;
/// Of the files in a directory.
const OPENED: u64 = libc::FAN_OPEN | libc::FAN_EVENT_ON_CHILD;
const LIMIT: &str = "/proc/sys/fs/fanotify/max_queued_events";

/// Leaves FAN_Q_OVERFLOW alone in the queue of a new group: fills it with events about files of our own, each another one since two about
/// the same would become one, until nothing is added, and takes all off but the last.
///
/// # Errors
/// [`Kind::Incompatible`] where a queue may be longer than can be filled.
pub(super) fn overflow(group: BorrowedFd<'_>) -> Result<(), Failure> {
    let limit = fs::read_to_string(LIMIT).ok().and_then(|text| text.trim().parse::<usize>().ok());
    if limit.is_some_and(|limit| limit > MOST) {
        let reason = format!("fs.fanotify.max_queued_events is above {MOST}; lower it for the restore");
        return Err(Failure::new(Kind::Incompatible, reason));
    }
    let queued = fill(group).doing(|| "filling it")?;
    drain(group, queued).doing(|| "reading it")
}

/// Fills a queue, and tells how many events are in it.
fn fill(group: BorrowedFd<'_>) -> nix::Result<usize> {
    let mount = crfs_sys::mount::new(c"tmpfs", b"crfs-overflow", b"nr_inodes=0", None)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    fanotify::add_mark(group, 0, OPENED, &path)?;
    let mut queued = 0;
    for batch in 0.. {
        for number in 0..BATCH {
            // Names of one length, so that all events have the same.
            let name = format!("{:016x}", batch * BATCH + number);
            openat(&mount, name.as_str(), OFlag::O_CREAT | OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        }
        let now = fanotify::queued(group)?;
        if now == queued {
            break;
        }
        queued = now;
    }
    fanotify::remove_mark(group, 0, OPENED, &path)?;
    Ok(queued)
}

/// Reads all events but the last.
fn drain(group: BorrowedFd<'_>, queued: usize) -> nix::Result<()> {
    let mut room = 0;
    for _ in 1..queued {
        // Never room for two.
        while let Err(errno) = fanotify::read(group, room) {
            match errno {
                Errno::EINVAL if room < MOST_OF_EVENT => room += EVENT_STEP,
                other => return Err(other),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn nothing_but_the_overflow_is_left() {
        let by_name = libc::FAN_REPORT_DFID_NAME | libc::FAN_REPORT_FID;
        for flags in [0, libc::FAN_CLASS_CONTENT, libc::FAN_REPORT_PIDFD, libc::FAN_REPORT_FID, by_name] {
            let group = fanotify::create(flags | libc::FAN_NONBLOCK | libc::FAN_CLOEXEC, 0).unwrap();
            let before = fs::read_dir("/proc/self/fd").unwrap().count();
            overflow(group.as_fd()).unwrap();
            assert_eq!(fanotify::queued(group.as_fd()), Ok(1), "{flags:#x}");
            let mut event = [0; 256];
            nix::unistd::read(&group, &mut event).unwrap();
            // Behind the length, the version and the length of what all events have.
            assert_eq!(event[8..16], libc::FAN_Q_OVERFLOW.to_ne_bytes(), "{flags:#x}");
            assert_eq!(nix::unistd::read(&group, &mut event), Err(Errno::EAGAIN));
            // Other tests of this process open files as well, but not as many.
            assert!(fs::read_dir("/proc/self/fd").unwrap().count() < before + 1000, "{flags:#x}");
        }
    }
}

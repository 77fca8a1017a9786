//! From the record to an instance, and to what it watches.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen::{look, set_status};
use crate::resource::mount::Roots;
use crfs_sys::inotify::{self, EVENT_SIZE};
use image_format::files::{File, FileKind, Inotify, InotifyWatch};
use image_format::layout::file_entry;
use image_format::{FileId, Image};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use nix::sys::uio::{pread, pwrite};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// Events that are made between two looks at the queue.
const BATCH: usize = 1024;

/// Makes an instance that watches nothing.
///
/// # Errors
/// When the system refuses: a user may have so many (fs.inotify.max_user_instances).
pub(in crate::resource) fn restore(id: FileId, file: &File) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let instance = inotify::create().doing(|| format!("{object}: creating an inotify instance"))?;
    set_status(instance.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
    Ok(instance)
}

/// Adds what each instance of an image watches, below their roots. `open` has the instances. Whatever is done to a watched file from then
/// on is reported, so everything else must be in its place. `notes` gets what a user should know.
///
/// # Errors
/// [`Kind::Incompatible`] for what is not there.
pub fn watch_all(
    image: &Image,
    roots: &Roots<'_>,
    open: &BTreeMap<FileId, OwnedFd>,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    for (&id, file) in &image.files {
        let (FileKind::Inotify(record), Some(instance)) = (&file.kind, open.get(&id)) else { continue };
        let object = file_entry(id);
        if record.unread {
            overflow(instance.as_fd()).doing(|| format!("{object}: making its queue overflow"))?;
            notes.push(format!(
                "{object}: events that waited in an inotify instance are lost; it reports that some were (IN_Q_OVERFLOW)"
            ));
        }
        watch(instance.as_fd(), record, roots.of_file(id), &object)?;
    }
    Ok(())
}

fn watch(instance: BorrowedFd<'_>, record: &Inotify, root: BorrowedFd<'_>, object: &str) -> Result<(), Failure> {
    for InotifyWatch { wd, path, mask } in &record.watches {
        let unfit = |reason: String| Failure::new(Kind::Incompatible, format!("{object}: {path}: {reason}"));
        let place = look(root, path).map_err(|error| unfit(format!("not found: {error}")))?;
        let place = PathBuf::from(format!("/proc/self/fd/{}", place.as_raw_fd()));
        let added = number(*wd)
            .and_then(|wd| inotify::set_next_wd(instance, wd))
            .and_then(|()| inotify::add_watch(instance, &place, u32::try_from(mask.0).map_err(|_| Errno::EINVAL)?));
        match added {
            Ok(got) if u32::try_from(got) == Ok(*wd) => {}
            Ok(got) => return Err(unfit(format!("watch {wd}: watch {got} has the same file"))),
            Err(errno) => return Err(unfit(format!("watch {wd}: it cannot be watched: {}", errno.desc()))),
        }
    }
    let next = number(record.next_wd).and_then(|wd| inotify::set_next_wd(instance, wd));
    next.doing(|| format!("{object}: setting the number of the next watch"))
}

fn number(wd: u32) -> nix::Result<i32> {
    i32::try_from(wd).map_err(|_| Errno::EINVAL)
}

/// Leaves IN_Q_OVERFLOW alone in the queue of a new instance: fills it with events about a file of our own until nothing is added, and
/// takes all off but the last.
fn overflow(instance: BorrowedFd<'_>) -> nix::Result<()> {
    let file = memfd_create(c"crfs-overflow", MFdFlags::MFD_CLOEXEC)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    // Of what is done through the descriptor of memfd_create(2) the kernel tells nothing.
    let file = nix::fcntl::open(&path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    let wd = inotify::add_watch(instance, &path, libc::IN_MODIFY | libc::IN_ACCESS)?;
    let mut queued = 0;
    loop {
        for _ in 0..BATCH {
            // Two of a kind would be one.
            pwrite(&file, b"1", 0)?;
            pread(&file, &mut [0], 0)?;
        }
        let now = inotify::queued(instance)?;
        if now == queued {
            break;
        }
        queued = now;
    }
    // What this would report finds no room either.
    inotify::remove_watch(instance, wd)?;
    let mut events = vec![0; queued.saturating_sub(EVENT_SIZE)];
    let mut rest = events.as_mut_slice();
    while !rest.is_empty() {
        let read = nix::unistd::read(instance, rest)?;
        rest = &mut rest[read..];
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_overflow_is_left() {
        let instance = inotify::create().unwrap();
        overflow(instance.as_fd()).unwrap();
        let mut events = [0; 64];
        assert_eq!(nix::unistd::read(&instance, &mut events), Ok(EVENT_SIZE));
        // wd -1, mask IN_Q_OVERFLOW, no cookie and no name.
        assert_eq!(events[..4], (-1i32).to_ne_bytes());
        assert_eq!(events[4..8], libc::IN_Q_OVERFLOW.to_ne_bytes());
        assert_eq!(events[8..16], [0; 8]);
    }
}

//! From the ends of a pipe to what is in it.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use image_format::files::OpenFlags;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// What a pipe holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::resource) struct Contents {
    /// F_GETPIPE_SZ.
    pub(in crate::resource) capacity: u64,
    /// The bytes, first in first.
    pub(in crate::resource) queued: Vec<u8>,
}

/// Whether this is an end of a pipe without a name.
pub(in crate::resource) fn is_end(seen: &Seen) -> bool {
    seen.link.starts_with(b"pipe:[") && !seen.is_path()
}

/// What can be told without reading from it: packets, and owners that are to be signalled.
///
/// # Errors
/// When an end cannot be asked: it is gone.
pub(in crate::resource) fn check(ends: &[&Seen]) -> Result<Option<Refusal>, Failure> {
    let name = ends[0].name();
    // Only the writing end shows that boundaries are kept.
    if ends.iter().any(|end| end.flags().contains(OpenFlags::O_DIRECT)) {
        return Ok(Some(Refusal::new(
            format!("{name} keeps packets apart (O_DIRECT) and cannot be carried"),
            "Use a pipe without O_DIRECT, and mark the boundaries in the data.",
        )));
    }
    Ok(None)
}

/// Compares the ends inside the container with those in the whole system (readers, writers).
pub(in crate::resource) fn check_ends(ends: &[&Seen], (readers, writers): (u64, u64)) -> Option<Refusal> {
    let count = |side: fn(&Seen) -> bool| ends.iter().filter(|end| side(end)).count() as u64;
    if readers <= count(Seen::readable) && writers <= count(Seen::writable) {
        return None;
    }
    Some(held_outside(ends[0]))
}

/// The refusal of a pipe that leaves the container.
pub(in crate::resource) fn held_outside(end: &Seen) -> Refusal {
    Refusal::new(
        format!("{}: the other end is held outside the container", end.name()),
        "Redirect the program's input and output to files, or run both sides of the pipe in the container.",
    )
}

/// Reads what is in a pipe, and leaves it there. `ends` are its descriptions, at least one; the tasks stand still.
///
/// # Errors
/// [`Kind::Stale`] when the content changed meanwhile.
pub(in crate::resource) fn capture(ends: &[&Seen]) -> Result<Result<Contents, Refusal>, Failure> {
    let name = ends[0].name();
    let reader = ends.iter().find(|end| end.readable());
    let end = reader.unwrap_or(&ends[0]).holder.duplicate().doing(|| format!("{name}: duplicating an end"))?;
    let capacity = fcntl(end.as_fd(), FcntlArg::F_GETPIPE_SZ).doing(|| format!("{name}: asking its capacity"))?;
    let bytes = crfs_sys::pipe::queued(end.as_fd()).doing(|| format!("{name}: asking how much is queued"))?;
    let size = u64::try_from(capacity).unwrap_or_default();
    if bytes > size {
        return Ok(Err(Refusal::new(
            format!("{name} holds {bytes} bytes, more than its capacity of {size}, and cannot be carried"),
            "Try again when its reader has caught up.",
        )));
    }
    if bytes == 0 {
        return Ok(Ok(Contents { capacity: size, queued: Vec::new() }));
    }
    let reader = match reader {
        Some(_) => end.into(),
        None => open_for_reading(&end).doing(|| format!("{name}: opening it for reading"))?,
    };
    let queued = copy(&reader, capacity, bytes).doing(|| format!("{name}: copying what is queued"))?;
    if queued.len() as u64 != bytes {
        return Err(Failure::new(
            Kind::Stale,
            format!("{name}: its content changes although its processes stand still"),
        ));
    }
    Ok(Ok(Contents { capacity: size, queued }))
}

fn open_for_reading(end: &OwnedFd) -> std::io::Result<File> {
    let path = format!("/proc/self/fd/{}", end.as_raw_fd());
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// tee(2) always starts at the front of the queue, so a pipe of the same capacity takes all of it at once.
fn copy(reader: &File, capacity: i32, bytes: u64) -> Result<Vec<u8>, std::io::Error> {
    let (ours, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    if fcntl(into.as_fd(), FcntlArg::F_GETPIPE_SZ)? != capacity {
        fcntl(into.as_fd(), FcntlArg::F_SETPIPE_SZ(capacity))?;
    }
    let length = usize::try_from(bytes).map_err(|_| Errno::EOVERFLOW)?;
    let copied = match crfs_sys::pipe::tee(reader.as_fd(), into.as_fd(), length) {
        // Emptied meanwhile: the caller compares.
        Err(Errno::EAGAIN) => 0,
        other => other?,
    };
    let mut queued = vec![0; copied];
    File::from(ours).read_exact(&mut queued)?;
    Ok(queued)
}

//! From the ends of a pipe to what is in it.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use image_format::files::OpenFlags;
use image_format::types::PAGE_SIZE;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// What a pipe holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::resource) struct Contents {
    /// F_GETPIPE_SZ.
    pub(in crate::resource) capacity: u64,
    /// The bytes, first in first.
    pub(in crate::resource) queued: Vec<u8>,
    /// The length of each packet; none where bytes have no boundaries.
    pub(in crate::resource) packets: Vec<u32>,
}

/// Whether this is an end of a pipe, with or without a name.
pub(in crate::resource) fn is_end(seen: &Seen) -> bool {
    seen.file_type() == libc::S_IFIFO && !seen.is_path()
}

/// Whether this is an end of a pipe without a name.
pub(in crate::resource) fn is_unnamed(seen: &Seen) -> bool {
    is_end(seen) && seen.link.starts_with(b"pipe:[")
}

/// Whether a reading end is not told that its pipe has no writer, since none has come yet. The tasks stand still, and there is no
/// writer.
///
/// # Errors
/// When it cannot be asked.
pub(in crate::resource) fn is_silent(seen: &Seen) -> Result<bool, Failure> {
    hung_up(seen).map(|told| !told).doing(|| format!("{}: asking whether a writer has come", seen.name()))
}

fn hung_up(seen: &Seen) -> nix::Result<bool> {
    let mut asked = [PollFd::new(seen.kept()?, PollFlags::empty())];
    poll(&mut asked, PollTimeout::ZERO)?;
    Ok(asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
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
        "Redirect the program's input and output to files, or run both sides of the pipe in the container; or freeze with `--external stdio`, if it is a standard stream of the container's first process.",
    )
}

/// Reads what is in a pipe, and leaves it there. `ends` are its descriptions, at least one; the tasks stand still.
///
/// # Errors
/// [`Kind::Stale`] when the content changed meanwhile.
pub(in crate::resource) fn capture(
    ends: &[&Seen],
    scratch: &mut Scratch,
) -> Result<Result<Contents, Refusal>, Failure> {
    let name = ends[0].name();
    let reader = ends.iter().find(|end| end.readable());
    let end = reader.unwrap_or(&ends[0]).kept().doing(|| format!("{name}: duplicating an end"))?;
    let slots = fcntl(end, FcntlArg::F_GETPIPE_SZ).doing(|| format!("{name}: asking its capacity"))?;
    let bytes = crfs_sys::pipe::queued(end).doing(|| format!("{name}: asking how much is queued"))?;
    let capacity = u64::try_from(slots).unwrap_or_default();
    if bytes > capacity {
        return Ok(Err(Refusal::new(
            format!("{name} holds {bytes} bytes, more than its capacity of {capacity}, and cannot be carried"),
            "Try again when its reader has caught up.",
        )));
    }
    if bytes == 0 {
        return Ok(Ok(Contents { capacity, ..Contents::default() }));
    }
    let reader = match reader {
        Some(_) => end.try_clone_to_owned().map(File::from).doing(|| format!("{name}: duplicating an end"))?,
        None => open_for_reading(end).doing(|| format!("{name}: opening it for reading"))?,
    };
    let packet_mode = ends.iter().any(|end| end.flags().contains(OpenFlags::O_DIRECT));
    let (parts, are_packets) =
        read(&reader, slots, bytes, packet_mode, scratch).doing(|| format!("{name}: copying what is queued"))?;
    let queued = parts.concat();
    if queued.len() as u64 != bytes {
        return Err(Failure::new(
            Kind::Stale,
            format!("{name}: its content changes although its processes stand still"),
        ));
    }
    let packets = match are_packets.as_slice() {
        [false] => Vec::new(),
        all if all.iter().all(|&is_packet| is_packet) => {
            parts.iter().map(|part| u32::try_from(part.len()).unwrap_or(u32::MAX)).collect()
        }
        _ => {
            return Ok(Err(Refusal::new(
                format!("{name} holds packets (O_DIRECT) and bytes without boundaries, and cannot be carried"),
                "Try again when its reader has caught up.",
            )));
        }
    };
    Ok(Ok(Contents { capacity, queued, packets }))
}

/// What is queued, as one read after the other gives it, and of each part whether it is a packet.
fn read(
    reader: &File,
    capacity: i32,
    bytes: u64,
    packet_mode: bool,
    scratch: &mut Scratch,
) -> std::io::Result<(Vec<Vec<u8>>, Vec<bool>)> {
    // As nearly all are.
    if let Some(whole) = scratch.copy(reader, capacity)?.read_stream(bytes)? {
        return Ok((vec![whole], vec![false]));
    }
    let parts = scratch.copy(reader, capacity)?.read_all(bytes)?;
    let are_packets = match parts.as_slice() {
        // A packet is a page at most.
        [part] if part.len() as u64 > PAGE_SIZE => vec![false],
        parts => scratch.copy(reader, capacity)?.packets(parts, packet_mode)?,
    };
    Ok((parts, are_packets))
}

fn open_for_reading(end: BorrowedFd<'_>) -> std::io::Result<File> {
    let path = format!("/proc/self/fd/{}", end.as_raw_fd());
    File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// The pipe into which others are copied one after the other, as long as they are of one capacity.
#[derive(Debug, Default)]
pub(in crate::resource) struct Scratch(Option<(File, OwnedFd, i32)>);

impl Scratch {
    /// tee(2) always starts at the front of the queue, so a pipe of the same capacity takes all of it at once.
    fn copy(&mut self, reader: &File, capacity: i32) -> std::io::Result<Copy<'_>> {
        let (ours, into, _) = match self.0.take().filter(|(_, _, known)| *known == capacity) {
            Some(empty) => self.0.insert(empty),
            None => {
                let (ours, into) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
                if fcntl(into.as_fd(), FcntlArg::F_GETPIPE_SZ)? != capacity {
                    fcntl(into.as_fd(), FcntlArg::F_SETPIPE_SZ(capacity))?;
                }
                self.0.insert((ours.into(), into, capacity))
            }
        };
        let length = usize::try_from(capacity).map_err(|_| Errno::EOVERFLOW)?;
        match crfs_sys::pipe::tee(reader.as_fd(), into.as_fd(), length) {
            // Emptied meanwhile: the caller compares.
            Err(Errno::EAGAIN) => {}
            other => drop(other?),
        }
        Ok(Copy(ours))
    }
}

/// A pipe with the content of another, to be consumed.
struct Copy<'a>(&'a mut File);

impl Copy<'_> {
    /// Everything, if it begins with bytes that have no boundaries and one read gives the rest; None leaves nothing behind, and says nothing.
    fn read_stream(&mut self, bytes: u64) -> std::io::Result<Option<Vec<u8>>> {
        let length = usize::try_from(bytes).map_err(|_| Errno::EOVERFLOW)?;
        let mut buffer = vec![0; length];
        if length > 1 {
            let begun = self.0.read(&mut buffer[..1]).is_ok();
            // What is missing was a packet's.
            let left = crfs_sys::pipe::queued(self.0.as_fd())?;
            if begun && left == bytes - 1 && self.0.read(&mut buffer[1..])? as u64 == left {
                return Ok(Some(buffer));
            }
        }
        self.read_all(bytes).map(|_| None)
    }

    /// What each read gives until there is nothing more.
    fn read_all(&mut self, bytes: u64) -> std::io::Result<Vec<Vec<u8>>> {
        let length = usize::try_from(bytes).map_err(|_| Errno::EOVERFLOW)?;
        let mut buffer = vec![0; length];
        let mut parts = Vec::new();
        loop {
            match self.0.read(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(parts),
                read => parts.push(buffer[..read?].to_vec()),
            }
        }
    }

    /// Whether each part is one packet: of a packet, what a read has no room for is thrown away (pipe(2), O_DIRECT). Of a single byte that
    /// cannot be told, unless more follows; then the mode of the pipe's ends must do.
    fn packets(&mut self, parts: &[Vec<u8>], packet_mode: bool) -> std::io::Result<Vec<bool>> {
        let mut kinds = Vec::new();
        for (index, part) in parts.iter().enumerate() {
            let before = crfs_sys::pipe::queued(self.0.as_fd())?;
            let mut rest = vec![0; 1];
            self.0.read_exact(&mut rest)?;
            let taken = before - crfs_sys::pipe::queued(self.0.as_fd())?;
            let whole = taken == part.len() as u64;
            let last = index + 1 == parts.len();
            kinds.push(whole && (part.len() > 1 || packet_mode || !last));
            if !whole {
                rest.resize(part.len() - usize::try_from(taken).unwrap_or(part.len()), 0);
                self.0.read_exact(&mut rest)?;
            }
        }
        Ok(kinds)
    }
}

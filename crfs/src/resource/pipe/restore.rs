//! From the records of a pipe's ends to a pipe.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen::{check_flags, set_status};
use image_format::FileId;
use image_format::files::{File, OpenFlags, Pipe};
use image_format::layout::{file_entry, pipe_data};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{Gid, Uid, fchown, pipe2};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// One end in an image.
#[derive(Clone, Copy, Debug)]
pub(in crate::resource) struct End<'a> {
    /// Its entry.
    pub(in crate::resource) id: FileId,
    /// Flags.
    pub(in crate::resource) file: &'a File,
    /// The pipe.
    pub(in crate::resource) pipe: &'a Pipe,
}

/// Makes a pipe, fills it, and opens all its ends. `staging` holds `files/pipe.N`; `owner` is user and group.
///
/// # Errors
/// [`Kind::BadImage`] when the ends contradict each other or the data; [`Kind::Incompatible`] where the capacity is not allowed.
pub(in crate::resource) fn restore(
    ends: &[End<'_>],
    staging: &Path,
    owner: Option<(u32, u32)>,
) -> Result<Vec<(FileId, OwnedFd)>, Failure> {
    let first = ends[0];
    let object = file_entry(first.id);
    let data = check(ends, staging)?;
    let (reader, writer) =
        pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).doing(|| format!("{object}: creating a pipe"))?;
    if let Some((uid, gid)) = owner {
        fchown(&writer, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .doing(|| format!("{object}: giving the pipe to user {uid}, group {gid}"))?;
    }
    fill(writer.as_fd(), first.pipe, &data, &object)?;
    let mut made = Made { reader: Some(reader), writer: Some(writer) };
    // Links that stay while the two are handed out.
    let spare = made.duplicate().doing(|| format!("{object}: duplicating the pipe"))?;
    ends.iter().map(|end| Ok((end.id, open_end(*end, &mut made, &spare)?))).collect()
}

/// Whether the ends say the same, and the data is there. Returns the data.
pub(super) fn check(ends: &[End<'_>], staging: &Path) -> Result<Vec<u8>, Failure> {
    let first = ends[0];
    for end in ends {
        check_flags(end.file.flags, &file_entry(end.id))?;
        if end.pipe != first.pipe {
            let reason =
                format!("{}: capacity and queued differ from those in {}", file_entry(end.id), file_entry(first.id));
            return Err(Failure::new(Kind::BadImage, reason));
        }
    }
    read_data(first.pipe, staging)
}

/// Gives a pipe its capacity and its content.
pub(super) fn fill(writer: BorrowedFd<'_>, pipe: &Pipe, data: &[u8], object: &str) -> Result<(), Failure> {
    set_capacity(writer, pipe.capacity, object)?;
    write(writer, pipe, data).doing(|| format!("{}: writing it into the pipe", pipe_data(pipe.pipe)))
}

fn write(writer: BorrowedFd<'_>, pipe: &Pipe, data: &[u8]) -> std::io::Result<()> {
    let mut into = std::fs::File::from(writer.try_clone_to_owned()?);
    if pipe.packets.is_empty() {
        return into.write_all(data);
    }
    let mut rest = data;
    fcntl(writer, FcntlArg::F_SETFL(OFlag::O_DIRECT | OFlag::O_NONBLOCK))?;
    for &length in &pipe.packets {
        let Some((packet, behind)) = rest.split_at_checked(length as usize) else { break };
        // Each by one write: that is what a packet is.
        into.write_all(packet)?;
        rest = behind;
    }
    fcntl(writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// What pipe2 gave, until it is handed out.
struct Made {
    reader: Option<OwnedFd>,
    writer: Option<OwnedFd>,
}

impl Made {
    fn duplicate(&self) -> std::io::Result<OwnedFd> {
        let any = self.reader.as_ref().or(self.writer.as_ref());
        any.map_or_else(|| Err(nix::errno::Errno::EBADF.into()), OwnedFd::try_clone)
    }
}

fn open_end(end: End<'_>, made: &mut Made, spare: &OwnedFd) -> Result<OwnedFd, Failure> {
    let object = file_entry(end.id);
    let flags = end.file.flags;
    let both = flags.contains(OpenFlags::O_RDWR);
    let write = flags.contains(OpenFlags::O_WRONLY);
    let original = if both || flags.contains(OpenFlags::O_LARGEFILE) {
        None
    } else if write {
        made.writer.take()
    } else {
        made.reader.take()
    };
    let fd = match original {
        Some(fd) => fd,
        None => {
            let path = format!("/proc/self/fd/{}", spare.as_raw_fd());
            let mut options = std::fs::File::options();
            options.read(both || !write).write(both || write).custom_flags(libc::O_NONBLOCK);
            options.open(path).doing(|| format!("{object}: opening the pipe once more"))?.into()
        }
    };
    set_status(fd.as_fd(), flags).doing(|| format!("{object}: setting its flags"))?;
    Ok(fd)
}

fn set_capacity(pipe: BorrowedFd<'_>, capacity: u64, object: &str) -> Result<(), Failure> {
    let bad = || Failure::new(Kind::BadImage, format!("{object}: capacity {capacity} is none that a pipe can have"));
    let wanted = i32::try_from(capacity).ok().filter(|&bytes| bytes > 0).ok_or_else(bad)?;
    let ask = fcntl(pipe, FcntlArg::F_GETPIPE_SZ).doing(|| format!("{object}: asking the capacity"))?;
    if ask == wanted {
        return Ok(());
    }
    match fcntl(pipe, FcntlArg::F_SETPIPE_SZ(wanted)) {
        Ok(got) if got == wanted => Ok(()),
        Ok(_) => Err(bad()),
        Err(nix::errno::Errno::EPERM) => Err(Failure::new(
            Kind::Incompatible,
            format!("{object}: a pipe of {capacity} bytes is not allowed here. Raise /proc/sys/fs/pipe-max-size"),
        )),
        Err(errno) => Err(errno).doing(|| format!("{object}: setting the capacity to {capacity}")),
    }
}

fn read_data(pipe: &Pipe, staging: &Path) -> Result<Vec<u8>, Failure> {
    let name = pipe_data(pipe.pipe);
    let bad = |reason: String| Failure::new(Kind::BadImage, format!("{name}: {reason}"));
    if pipe.queued > pipe.capacity {
        return Err(bad(format!("{} bytes do not fit into a pipe of {}", pipe.queued, pipe.capacity)));
    }
    let options = std::fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open(staging.join(&name));
    let file = match options {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(bad("missing".to_owned())),
        other => other.doing(|| format!("{name}: opening it"))?,
    };
    let size = file.metadata().doing(|| format!("{name}: looking at it"))?.len();
    if size != pipe.queued {
        return Err(bad(format!("it has {size} bytes, and the record says {}", pipe.queued)));
    }
    let mut data = Vec::new();
    file.take(pipe.queued).read_to_end(&mut data).doing(|| format!("{name}: reading it"))?;
    Ok(data)
}

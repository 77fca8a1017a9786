//! Opening everything an image has open.

use super::{limit, reopen};
use crate::failure::{Doing, Failure, Kind};
use crate::resource::mount::Roots;
use crate::resource::unnamed::Made;
use crate::resource::{
    device, directory, epoll, eventfd, fanotify, inotify, io_uring, lock, path_only, pipe, pseudo_file, regular_file,
    signalfd, timerfd, tty,
};
use image_format::files::{Fifo, File, FileKind, OpenFlags, Stream};
use image_format::{FileId, Image};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

/// What the worker holds for the processes.
#[derive(Debug)]
pub struct Opened {
    /// Every description.
    pub files: BTreeMap<FileId, OwnedFd>,
    /// The terminals that sessions have.
    pub terminals: tty::Terminals,
}

/// Opens each description of an image but message queues, sockets, pidfds, namespaces and files of /proc once, in the calling process, close-on-exec. The first
/// stand in a namespace of their own ([`crate::resource::mqueue::restore::make`]), files of tasks that have ended need one
/// ([`crate::resource::ended_task::restore_all`]), the others come when the processes are there:
/// [`crate::resource::socket::restore_all`], [`open_pseudo_files`].
///
/// `staging` is a plain directory with the image's files, of which `files/pipe.N` are read. `roots` are O_PATH descriptors of the
/// root directories of the container's mount namespaces; no path leads out of them. `log` is the log of the container that is being
/// made. `unnamed` has the files that the image holds. `notes` gets what a user should know although it works: files that have grown.
///
/// The soft limit of open files is raised to the hard one. What epoll and inotify instances watch is not added here:
/// [`crate::resource::epoll::registrations`], [`crate::resource::inotify::watch_all`].
///
/// # Errors
/// [`Kind::Incompatible`] or [`Kind::BadImage`] with one entry in the chain for each description that cannot be opened; the first
/// refusal of the system otherwise.
pub fn open_all(
    image: &Image,
    staging: &Path,
    roots: &Roots<'_>,
    log: &Path,
    unnamed: &Made,
    notes: &mut Vec<String>,
) -> Result<Opened, Failure> {
    limit::raise().doing(|| "raising the limit of open files")?;
    let logs = logs(image)?;
    let mut refused = Refused::default();
    let mut open = BTreeMap::new();
    let mut pipes: BTreeMap<u32, Vec<pipe::End<'_>>> = BTreeMap::new();
    let mut ttys = Vec::new();
    // Before any is opened: several may be open on one file.
    for (&id, file) in image.files.iter().filter(|(id, _)| !logs.contains(id)) {
        refused.keep(regular_file::replace(id, file, roots.of_file(id), notes))?;
    }
    let mut alone = Vec::new();
    for (&id, file) in &image.files {
        let opened = match &file.kind {
            FileKind::Regular(_) if logs.contains(&id) => regular_file::restore_log(id, file, log),
            FileKind::Pipe(record) | FileKind::Fifo(Fifo { pipe: record, .. }) => {
                pipes.entry(record.pipe).or_default().push(pipe::End { id, file, pipe: record });
                continue;
            }
            FileKind::Tty(record) => {
                ttys.push(tty::End { id, file, tty: record });
                continue;
            }
            FileKind::UnixSocket(_)
            | FileKind::InetSocket(_)
            | FileKind::NetlinkSocket(_)
            | FileKind::MessageQueue(_)
            | FileKind::Pseudo(_)
            | FileKind::EndedTask(_)
            | FileKind::Pidfd(_)
            | FileKind::Namespace(_) => continue,
            FileKind::Unnamed(record) => regular_file::restore_unnamed(id, file, record, unnamed),
            _ => {
                alone.push((id, file));
                continue;
            }
        };
        open.extend(refused.keep(opened)?.map(|fd| (id, fd)));
    }
    limit::make_room(alone.len());
    let looked = reopen::Looked::default();
    let opened = image_format::parallel::map(&alone, |&(id, file)| {
        open_one(image, id, file, staging, roots.of_file(id), &looked)
    });
    for (&(id, _), opened) in alone.iter().zip(opened) {
        let Some((fd, note)) = refused.keep(opened)? else { continue };
        open.insert(id, fd);
        notes.extend(note);
    }
    for ends in pipes.values() {
        let restored = match ends[0].file.kind {
            FileKind::Fifo(_) => pipe::restore_fifo(ends, staging, roots.of_file(ends[0].id)),
            _ => pipe::restore(ends, staging, owner(image, ends)),
        };
        open.extend(refused.keep(restored)?.into_iter().flatten());
    }
    let terminals = refused.keep(tty::restore(&ttys, image, roots.own()))?;
    refused.finish()?;
    let (ends, terminals) = terminals.unwrap_or_default();
    open.extend(ends);
    lock::take(image, &open)?;
    Ok(Opened { files: open, terminals })
}

/// Opens what stands alone, and tells what a user should know although it works.
fn open_one(
    image: &Image,
    id: FileId,
    file: &File,
    staging: &Path,
    root: BorrowedFd<'_>,
    looked: &reopen::Looked,
) -> Result<(OwnedFd, Option<String>), Failure> {
    let opened = match &file.kind {
        FileKind::Regular(record) => return regular_file::restore(id, file, record, root, looked),
        FileKind::Directory(record) => directory::restore(id, file, record, root),
        FileKind::PathOnly(record) => path_only::restore(id, file, record, root),
        FileKind::Device(record) => device::restore(id, file, record, root),
        FileKind::Eventfd(record) => eventfd::restore(id, file, record),
        FileKind::Epoll(_) => epoll::restore(id, file),
        FileKind::Timerfd(record) => timerfd::restore(id, file, record, &image.manifest.clocks),
        FileKind::Signalfd(record) => signalfd::restore(id, file, record),
        FileKind::Inotify(_) => inotify::restore(id, file),
        FileKind::Fanotify(record) => fanotify::restore(id, file, record),
        FileKind::IoUring(record) => io_uring::restore::restore(id, file, record, staging),
        FileKind::Pipe(_)
        | FileKind::Fifo(_)
        | FileKind::Unnamed(_)
        | FileKind::Tty(_)
        | FileKind::UnixSocket(_)
        | FileKind::InetSocket(_)
        | FileKind::NetlinkSocket(_)
        | FileKind::MessageQueue(_)
        | FileKind::Pseudo(_)
        | FileKind::EndedTask(_)
        | FileKind::Pidfd(_)
        | FileKind::Namespace(_) => Err(Failure::new(Kind::System, "what is made with others is opened with them")),
    };
    Ok((opened?, None))
}

/// Opens the files of /proc of an image below their roots, when its processes are there.
///
/// # Errors
/// [`Kind::Incompatible`] when one is not there.
pub fn open_pseudo_files(
    image: &Image,
    roots: &Roots<'_>,
    open: &mut BTreeMap<FileId, OwnedFd>,
) -> Result<(), Failure> {
    pseudo_file::restore_all(image, roots, open)
}

/// The descriptions that are the container's log.
fn logs(image: &Image) -> Result<BTreeSet<FileId>, Failure> {
    let mut logs = BTreeSet::new();
    for stdio in &image.stdios {
        if stdio.stream != Stream::Log {
            continue;
        }
        let file = image.files.get(&stdio.file);
        let fits = |file: &File| matches!(file.kind, FileKind::Regular(_)) && !file.flags.contains(OpenFlags::O_PATH);
        if !file.is_some_and(fits) {
            let entry = image_format::layout::file_entry(stdio.file);
            let reason = format!("{}: {entry} is no open regular file of this image", image_format::layout::STDIOS);
            return Err(Failure::new(Kind::BadImage, reason));
        }
        logs.insert(stdio.file);
    }
    Ok(logs)
}

/// User and group of the first process that holds an end of a pipe.
fn owner(image: &Image, ends: &[pipe::End<'_>]) -> Option<(u32, u32)> {
    let table = image.tables().find(|table| table.fds.iter().any(|fd| ends.iter().any(|end| end.id == fd.file)))?;
    let credentials = &image.processes.get(&table.process)?.first_thread()?.1.attr.credentials;
    Some((credentials.uid[3], credentials.gid[3]))
}

/// What cannot be opened, until everything was tried.
#[derive(Default)]
struct Refused(Vec<Failure>);

impl Refused {
    /// Remembers what is the image's or the host's fault; everything else ends the attempt.
    fn keep<T>(&mut self, result: Result<T, Failure>) -> Result<Option<T>, Failure> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(failure) if matches!(failure.kind, Kind::BadImage | Kind::Incompatible) => {
                self.0.push(failure);
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        let bad = self.0.iter().any(|failure| failure.kind == Kind::BadImage);
        if self.0.is_empty() {
            return Ok(());
        }
        let kind = if bad { Kind::BadImage } else { Kind::Incompatible };
        Err(Failure { kind, chain: self.0.into_iter().map(|failure| failure.chain.join(": ")).collect() })
    }
}

//! Making all sockets of an image, when its processes are there and nobody has descriptors yet.

use super::inside;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen::{check_flags, set_status};
use crate::resource::{inet_socket, netlink_socket, unix_socket};
use crfs_sys::sockets::{bring_loopback_up, take_loopback_down};
use crfs_tracee::Batch;
use image_format::files::FileKind;
use image_format::layout::{file_entry, socket_data};
use image_format::namespaces::NetworkNamespace;
use image_format::socket::UnixLink;
use image_format::{FileId, Image, Pid};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The processes that are being built, as far as sockets need them.
pub trait Processes {
    /// Runs calls in a process, and answers what each returned.
    ///
    /// # Errors
    /// When one fails, or the process is gone.
    fn run(&mut self, process: Pid, batch: &Batch) -> Result<Vec<i64>, Failure>;

    /// A process as the host numbers it; None where there is none of this id.
    fn host(&mut self, process: Pid) -> Option<i32>;

    /// The descriptor that every process has of a pidfd of this worker.
    fn link(&self) -> u32;
}

/// Where sockets are made, and what they are made from.
pub(in crate::resource) struct Site<'a> {
    pub(in crate::resource) image: &'a Image,
    /// A plain directory with the image's files, of which `files/ID.queue` are read.
    pub(in crate::resource) staging: &'a Path,
    /// An O_PATH descriptor of the container's root directory.
    pub(in crate::resource) root: BorrowedFd<'a>,
    /// The container's first process, as the host numbers it.
    pub(in crate::resource) init: i32,
    /// The network of that one.
    own: &'a File,
    /// Those that some processes have apart, in the order of the image.
    apart: &'a [File],
}

impl Site<'_> {
    /// The network namespace that a socket was made in, if it is not the container's own; and that one, for the way back.
    pub(in crate::resource) fn network(&self, id: FileId) -> Option<(&File, &File)> {
        let apart = self.apart.get(self.image.network_of_socket(id).checked_sub(1)?)?;
        Some((apart, self.own))
    }

    /// Runs `part` where a socket was made, in the container's own network or one apart.
    pub(in crate::resource) fn where_it_was<T>(
        &self,
        id: FileId,
        part: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        match self.network(id) {
            Some((apart, _)) => inside::in_open_network(apart, part),
            None => part(),
        }
    }

    /// The bytes queued in the socket of an entry.
    pub(in crate::resource) fn queue(&self, id: FileId, size: u64) -> Result<Vec<u8>, Failure> {
        if size == 0 {
            return Ok(Vec::new());
        }
        let name = socket_data(id);
        let bad = |reason: String| Failure::new(Kind::BadImage, format!("{name}: {reason}"));
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(self.staging.join(&name));
        let file = match file {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(bad("missing".to_owned())),
            other => other.doing(|| format!("{name}: opening it"))?,
        };
        let mut data = Vec::new();
        file.take(size.saturating_add(1)).read_to_end(&mut data).doing(|| format!("{name}: reading it"))?;
        if data.len() as u64 != size {
            return Err(bad(format!("it has {} bytes, and the record says {size}", data.len())));
        }
        Ok(data)
    }
}

/// What a user should know of the sockets of an image when they are made: connections to the outside are new ones.
#[must_use]
pub fn notes(image: &Image) -> Vec<String> {
    let note = |(&id, file): (&FileId, &image_format::files::File)| match &file.kind {
        FileKind::UnixSocket(socket) => {
            let UnixLink::External(external) = &socket.link else { return None };
            let object = file_entry(id);
            Some(format!(
                "{object}: is connected to {} anew; what was under way on its connection to the outside is lost",
                external.path
            ))
        }
        _ => None,
    };
    image.files.iter().filter_map(note).collect()
}

/// Makes every socket of an image and adds it to `open`, which has all other descriptions: messages may carry them. `root` is an O_PATH
/// descriptor of the container's root, `init` its first process as the host numbers it, `staging` a plain directory with the image's
/// files, `apart` the network namespaces that some processes have apart.
///
/// The calling process must have one thread: it enters the container's network and mounts for a while.
///
/// # Errors
/// [`Kind::Incompatible`] where a name or an address is taken, [`Kind::BadImage`] for records that fit nothing.
pub fn restore_all(
    image: &Image,
    staging: &Path,
    root: BorrowedFd<'_>,
    init: i32,
    apart: &[File],
    processes: &mut dyn Processes,
    open: &mut BTreeMap<FileId, OwnedFd>,
) -> Result<(), Failure> {
    let sockets: Vec<FileId> =
        image.files.iter().filter(|(_, file)| file.kind.is_socket()).map(|(&id, _)| id).collect();
    if sockets.is_empty() {
        return Ok(());
    }
    let path = format!("/proc/{init}/ns/net");
    let own = &File::open(&path).doing(|| format!("{path}: opening"))?;
    let site = Site { image, staging, root, init, own, apart };
    inside::in_open_network(own, || {
        with_addresses(&site, 0, open)?;
        for (number, (network, content)) in (1..).zip(apart.iter().zip(image.networks().map(|(content, _)| content))) {
            if !content.sockets.is_empty() {
                inside::in_open_network(network, || with_loopback(content, || with_addresses(&site, number, open)))?;
            }
        }
        unix_socket::restore(&site, processes, open)
    })?;
    for id in sockets {
        let object = file_entry(id);
        let flags = image.files[&id].flags;
        check_flags(flags, &object)?;
        let fd = open.get(&id).ok_or(Errno::EBADF).doing(|| format!("{object}: was not made"))?;
        set_status(fd.as_fd(), flags).doing(|| format!("{object}: setting its flags"))?;
    }
    Ok(())
}

/// Makes the sockets whose addresses are those of a network, which the calling thread is in: 0, the container's own, or one apart.
fn with_addresses(site: &Site<'_>, network: usize, open: &mut BTreeMap<FileId, OwnedFd>) -> Result<(), Failure> {
    inet_socket::restore(site, network, open)?;
    netlink_socket::restore(site.image, network, open)
}

/// Runs `part` while `lo` is up, without which there are no connections, in a network apart that the calling thread is in.
fn with_loopback<T>(content: &NetworkNamespace, part: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    if content.loopback {
        return part();
    }
    bring_loopback_up().doing(|| "bringing up lo")?;
    let done = part()?;
    take_loopback_down().doing(|| "taking lo down")?;
    Ok(done)
}

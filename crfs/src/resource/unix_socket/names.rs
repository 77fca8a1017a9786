//! Names: socket files in the container's directories, names whose file is to stand nowhere, and the abstract name space.
//!
//! Source: unix(7), bind(2).

use crate::failure::{Doing, Failure, Kind};
use crate::resource::socket::address::{self, Name};
use crate::resource::socket::restore::Site;
use crate::resource::socket::{inside, options};
use crfs_sys::socket_options::{bind, connect};
use image_format::layout::file_entry;
use image_format::socket::{SocketStyle, UnixPath};
use image_format::{Bytes, FileId};
use nix::errno::Errno;
use nix::sys::socket::AddressFamily;
use nix::sys::stat::{Mode, umask};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, lchown};
use std::path::Path;

/// `struct sockaddr_un`
pub(super) const SOCKADDR_MAX: usize = 110;

/// The name of a listening socket that is gone.
#[derive(Clone, Copy, Debug)]
pub(super) enum Former<'a> {
    /// A path.
    Path(&'a [u8]),
    /// A name in the abstract name space.
    Abstract(&'a [u8]),
}

/// The path from the container's root.
pub(super) fn absolute(path: &UnixPath) -> Bytes {
    match &path.directory {
        Some(directory) => Bytes([directory.0.as_slice(), b"/", &path.path.0].concat()),
        None => path.path.clone(),
    }
}

pub(super) fn bind_abstract(fd: BorrowedFd<'_>, name: &[u8], object: &str) -> Result<(), Failure> {
    bind(fd, &address::unix(&Name::Abstract(name.to_vec()))).map_err(|errno| refuse(object, name, errno))
}

fn refuse(object: &str, name: &[u8], errno: Errno) -> Failure {
    let name = Bytes(name.to_vec());
    Failure::new(Kind::Incompatible, format!("{object}: name: {name} cannot be had here: {}", errno.desc()))
}

/// Binds sockets to paths in the container, where files that the originals have left are replaced. Returns the new files as O_PATH
/// descriptors.
pub(super) fn bind_paths(
    site: &Site<'_>,
    paths: &[(FileId, BorrowedFd<'_>, &UnixPath)],
) -> Result<Vec<(FileId, File)>, Failure> {
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    inside::in_files(site.init, site.root, || {
        paths.iter().map(|&(id, fd, path)| Ok((id, bind_path(fd, path, &file_entry(id))?))).collect()
    })
}

fn bind_path(fd: BorrowedFd<'_>, record: &UnixPath, object: &str) -> Result<File, Failure> {
    let doing = || format!("{object}: name: {}", record.path);
    // As it was bound: relative to the directory of then.
    let directory = record.directory.as_ref().map_or(&b"/"[..], |directory| &directory.0);
    std::env::set_current_dir(OsStr::from_bytes(directory)).map_err(|error| {
        let reason = format!("{}: directory: {}: {error}", doing(), Bytes(directory.to_vec()));
        Failure::new(Kind::Incompatible, reason)
    })?;
    let path = Path::new(OsStr::from_bytes(&record.path.0));
    remove_stale(path, &record.path, object)?;
    let mask = umask(Mode::empty());
    let bound = bind(fd, &address::unix(&Name::Path(record.path.0.clone())));
    umask(mask);
    bound.map_err(|errno| refuse(object, &record.path.0, errno))?;
    lchown(path, Some(record.file.uid), Some(record.file.gid)).doing(doing)?;
    fs::set_permissions(path, Permissions::from_mode(record.file.mode.0)).doing(doing)?;
    place(path).doing(doing)
}

/// An O_PATH descriptor of a socket file.
fn place(path: &Path) -> std::io::Result<File> {
    File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)
}

/// Removes the file that the original socket has left, unless a socket is bound to it.
fn remove_stale(path: &Path, name: &Bytes, object: &str) -> Result<(), Failure> {
    let incompatible = |reason: &str| Failure::new(Kind::Incompatible, format!("{object}: name: {name}: {reason}"));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(incompatible(&format!("it cannot be looked at: {error}"))),
        Ok(found) if !found.file_type().is_socket() => Err(incompatible("something else than a socket stands there")),
        Ok(_) => {
            // Whoever listens there is of another style, and learns nothing of this.
            let asker = options::fresh(AddressFamily::Unix, SocketStyle::Datagram).doing(|| object.to_owned())?;
            match connect(asker.as_fd(), &address::unix(&Name::Path(name.0.clone()))) {
                Err(Errno::ECONNREFUSED) => fs::remove_file(path).doing(|| format!("{object}: name: {name}")),
                _ => Err(incompatible("a socket is bound to it")),
            }
        }
    }
}

/// Binds a socket to a path so that its file appears nowhere: with an empty directory as the root, which goes afterwards. Returns the
/// file as an O_PATH descriptor.
pub(super) fn bind_nowhere(fd: BorrowedFd<'_>, path: &[u8], near: &Path, object: &str) -> Result<File, Failure> {
    let doing = || format!("{object}: name: {}", Bytes(path.to_vec()));
    let empty = near.join(".unix-socket");
    fs::create_dir(&empty).doing(doing)?;
    let bound = inside::in_directory(&empty, || {
        let path = Path::new(OsStr::from_bytes(path));
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).doing(doing)?;
        bind(fd, &address::unix(&Name::Path(path.as_os_str().as_bytes().to_vec()))).doing(doing)?;
        place(path).doing(doing)
    });
    fs::remove_dir_all(&empty).doing(doing)?;
    bound
}

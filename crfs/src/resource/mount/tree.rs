//! The files of a tmpfs, listed.

use image_format::mounts::{DeviceNumber, ExtendedAttribute, FileContent, FilePart, Node, TreeEntry};
use image_format::{Blob, Bytes, Octal, Timespec};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, major, minor};
use nix::unistd::{Whence, lseek64};
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Lists what is below a directory, which is the top of a mount that nothing is mounted on: each directory before what is in it, in
/// the order of names.
pub(super) fn list(top: &OwnedFd) -> io::Result<Vec<TreeEntry>> {
    let base = PathBuf::from(format!("/proc/self/fd/{}", top.as_raw_fd()));
    let mut entries = Vec::new();
    let mut names = HashMap::new();
    // A slash, so that the link itself is not meant.
    entries.push(entry(&base.join(""), Bytes::from("."), &mut names)?);
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        let mut children: Vec<PathBuf> = Vec::new();
        for child in fs::read_dir(base.join(&directory))? {
            children.push(directory.join(child?.file_name()));
        }
        children.sort();
        for child in children {
            let path = Bytes(child.as_os_str().as_bytes().to_vec());
            let found = entry(&base.join(&child), path, &mut names)?;
            if found.node == Node::Directory {
                directories.push(child);
            }
            entries.push(found);
        }
    }
    Ok(entries)
}

/// `names` has the paths of files with several names, by inode.
fn entry(path: &Path, shown: Bytes, names: &mut HashMap<u64, Bytes>) -> io::Result<TreeEntry> {
    let metadata = fs::symlink_metadata(path)?;
    let node = match names.get(&metadata.ino()) {
        Some(first) => Node::Link(first.clone()),
        None => node(path, &metadata)?,
    };
    if metadata.nlink() > 1 && !metadata.is_dir() {
        names.entry(metadata.ino()).or_insert_with(|| shown.clone());
    }
    Ok(TreeEntry {
        path: shown,
        node,
        mode: Octal(metadata.mode() & 0o7777),
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified: Timespec { sec: metadata.mtime(), nsec: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) },
        xattrs: xattrs(path)?,
    })
}

fn node(path: &Path, metadata: &Metadata) -> io::Result<Node> {
    let device = || -> io::Result<DeviceNumber> {
        let number = |number: u64| u32::try_from(number).map_err(io::Error::other);
        Ok(DeviceNumber { major: number(major(metadata.rdev()))?, minor: number(minor(metadata.rdev()))? })
    };
    Ok(match SFlag::from_bits_truncate(metadata.mode() & SFlag::S_IFMT.bits()) {
        SFlag::S_IFDIR => Node::Directory,
        SFlag::S_IFIFO => Node::Fifo,
        SFlag::S_IFSOCK => Node::Socket,
        SFlag::S_IFLNK => Node::Symlink(Bytes(fs::read_link(path)?.into_os_string().into_vec())),
        SFlag::S_IFCHR => Node::CharacterDevice(device()?),
        SFlag::S_IFBLK => Node::BlockDevice(device()?),
        _ => Node::File(FileContent { size: metadata.size(), parts: parts(path, metadata.size())? }),
    })
}

/// What of a file is no hole.
fn parts(path: &Path, size: u64) -> io::Result<Vec<FilePart>> {
    let file = File::options().read(true).custom_flags(libc::O_NOATIME | libc::O_NOFOLLOW).open(path)?;
    let seek = |at: u64, whence: Whence| -> io::Result<u64> {
        let found = lseek64(file.as_fd(), i64::try_from(at).map_err(io::Error::other)?, whence)?;
        u64::try_from(found).map_err(io::Error::other)
    };
    let mut parts = Vec::new();
    let mut at = 0;
    while at < size {
        let offset = match seek(at, Whence::SeekData) {
            // There is only a hole left.
            Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => break,
            other => other?,
        };
        at = seek(offset, Whence::SeekHole)?.min(size);
        if at > offset {
            parts.push(FilePart { offset, length: at - offset });
        }
    }
    Ok(parts)
}

fn xattrs(path: &Path) -> io::Result<Vec<ExtendedAttribute>> {
    let names = match crfs_sys::xattr::names(path) {
        Err(Errno::EOPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let value = |name: Vec<u8>| -> io::Result<ExtendedAttribute> {
        Ok(ExtendedAttribute { value: Blob(crfs_sys::xattr::value(path, &name)?), name: Bytes(name) })
    };
    let mut found = names.into_iter().map(value).collect::<io::Result<Vec<_>>>()?;
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

//! The files of a tmpfs, made again.

use image_format::Timespec;
use image_format::mounts::{DeviceNumber, FileContent, Node, TreeEntry};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mkdirat, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, LinkatFlags, Uid, fchdir, fchownat, linkat, symlinkat};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Bytes that are copied at a time.
const PART: usize = 1 << 18;

/// Makes every file below an empty directory, with contents from `data`. `alive` is told now and then that it goes on. The caller's
/// working directory is somewhere below it afterwards.
///
/// # Errors
/// The index of the entry that cannot be made, and why.
pub(super) fn fill(
    top: BorrowedFd<'_>,
    tree: &[TreeEntry],
    data: &mut dyn Read,
    alive: &mut dyn FnMut(),
) -> Result<(), (usize, io::Error)> {
    let mut buffer = vec![0; PART];
    for (index, entry) in tree.iter().enumerate() {
        alive();
        make(top, entry, data, &mut buffer, alive).map_err(|error| (index, error))?;
    }
    // Whatever is made in a directory changes its time.
    for (index, entry) in tree.iter().enumerate().rev().filter(|(_, entry)| entry.node == Node::Directory) {
        enter(top, entry).and_then(|name| set_time(name, entry.modified)).map_err(|error| (index, error))?;
    }
    Ok(())
}

/// Goes to the directory of an entry, and tells the entry's name there: paths of any depth are short names then.
fn enter<'a>(top: BorrowedFd<'_>, entry: &'a TreeEntry) -> io::Result<&'a Path> {
    let path = Path::new(OsStr::from_bytes(&entry.path.0));
    fchdir(directory(top, path.parent().unwrap_or(Path::new("")))?)?;
    Ok(path.file_name().map_or(Path::new("."), Path::new))
}

fn directory(top: BorrowedFd<'_>, path: &Path) -> nix::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC);
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(top, path, how.resolve(resolve))
}

fn make(
    top: BorrowedFd<'_>,
    entry: &TreeEntry,
    data: &mut dyn Read,
    buffer: &mut [u8],
    alive: &mut dyn FnMut(),
) -> io::Result<()> {
    let name = enter(top, entry)?;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let device =
        |kind: SFlag, number: &DeviceNumber| mknod(name, kind, mode, makedev(number.major.into(), number.minor.into()));
    match &entry.node {
        Node::Directory if name == Path::new(".") => {}
        Node::Directory => mkdirat(AT_FDCWD, name, Mode::S_IRWXU)?,
        Node::Fifo => mknod(name, SFlag::S_IFIFO, mode, 0)?,
        Node::Socket => mknod(name, SFlag::S_IFSOCK, mode, 0)?,
        Node::CharacterDevice(number) => device(SFlag::S_IFCHR, number)?,
        Node::BlockDevice(number) => device(SFlag::S_IFBLK, number)?,
        Node::Symlink(target) => symlinkat(OsStr::from_bytes(&target.0), AT_FDCWD, name)?,
        Node::Link(path) => {
            let path = Path::new(OsStr::from_bytes(&path.0));
            let from = directory(top, path.parent().unwrap_or(Path::new("")))?;
            let first = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            // The first name has all the rest.
            return Ok(linkat(from, first, AT_FDCWD, name, LinkatFlags::empty())?);
        }
        Node::File(content) => write(name, content, data, buffer, alive)?,
    }
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fchownat(AT_FDCWD, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if !matches!(entry.node, Node::Symlink(_)) {
        std::fs::set_permissions(name, std::fs::Permissions::from_mode(entry.mode.0))?;
    }
    // After the owner, whose change takes capabilities away.
    for xattr in &entry.xattrs {
        crfs_sys::xattr::set(name, &xattr.name.0, &xattr.value.0)?;
    }
    set_time(name, entry.modified)
}

pub(super) fn set_time(name: &Path, time: Timespec) -> io::Result<()> {
    let modified = TimeSpec::new(time.sec, time.nsec.into());
    Ok(utimensat(AT_FDCWD, name, &TimeSpec::UTIME_OMIT, &modified, UtimensatFlags::NoFollowSymlink)?)
}

fn write(
    name: &Path,
    content: &FileContent,
    data: &mut dyn Read,
    buffer: &mut [u8],
    alive: &mut dyn FnMut(),
) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(name)?;
    file.set_len(content.size)?;
    for part in &content.parts {
        let mut done = 0;
        while done < part.length {
            let length = usize::try_from(part.length - done).unwrap_or(usize::MAX).min(buffer.len());
            data.read_exact(&mut buffer[..length])?;
            file.write_all_at(&buffer[..length], part.offset + done)?;
            done += length as u64;
            alive();
        }
    }
    Ok(())
}

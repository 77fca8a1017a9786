//! The overlay that is a container's root: that of the host where it is still mounted, otherwise a new one of the same directories.

use crate::failure::{Doing, Failure, Kind};
use crate::mountinfo::{Mount, mounts};
use image_format::Bytes;
use image_format::layout::MOUNTS;
use image_format::mounts::FileSystem;
use nix::mount::{MsFlags, mount};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The options that say which directories an overlay is made of.
const DIRECTORIES: [&[u8]; 3] = [b"lowerdir=", b"upperdir=", b"workdir="];

/// Where a mount that hides nothing that is needed can be put: every host has it, and whose mount namespace it is leaves it behind.
const PLACE: &str = "/proc";

/// The path of the overlay, which is `path` if the host has it there. The caller is in a mount namespace of its own, and its /proc is not
/// used any more.
///
/// # Errors
/// [`Kind::Incompatible`] when it cannot be mounted.
pub(super) fn find_or_mount(overlay: &FileSystem, path: &Path) -> Result<PathBuf, Failure> {
    let text = fs::read("/proc/thread-self/mountinfo").doing(|| "/proc/thread-self/mountinfo: reading")?;
    if let Some(found) = mounted(overlay, path, &mounts(&text)) {
        return Ok(found);
    }
    let os = |bytes: &Bytes| OsStr::from_bytes(&bytes.0).to_owned();
    let flags = if overlay.read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
    mount(Some(os(&overlay.source).as_os_str()), PLACE, Some("overlay"), flags, Some(os(&overlay.options).as_os_str()))
        .doing(|| format!("{MOUNTS}: /: mounting the overlay {}, of which the image has no file", overlay.options))
        .map_err(|failure| Failure { kind: Kind::Incompatible, ..failure })?;
    Ok(PLACE.into())
}

/// Where this overlay is mounted, `path` before others.
#[must_use]
pub(crate) fn mounted(overlay: &FileSystem, path: &Path, there: &[Mount]) -> Option<PathBuf> {
    let options = overlay.options.0.split(|&byte| byte == b',').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let is_it = |mount: &&Mount| {
        let root = mount.kind == "overlay" && mount.root == Path::new("/");
        root && directories(&mount.options) == directories(&options)
    };
    let paths: Vec<&Path> = there.iter().filter(is_it).map(|mount| mount.path.as_path()).collect();
    paths.iter().find(|found| **found == path).or(paths.first()).map(|found| found.to_path_buf())
}

/// The directories that an overlay is made of, but such as have escaped characters in their names.
#[must_use]
pub(crate) fn layers(overlay: &FileSystem) -> Vec<PathBuf> {
    let options = overlay.options.0.split(|&byte| byte == b',');
    let values = options.filter_map(|option| DIRECTORIES.iter().find_map(|name| option.strip_prefix(*name)));
    let paths = values.flat_map(|value| value.split(|&byte| byte == b':'));
    let plain = paths.filter(|path| !path.is_empty() && !path.contains(&b'\\'));
    plain.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect()
}

fn directories(options: &[Vec<u8>]) -> Vec<&[u8]> {
    let of =
        |name: &[u8]| options.iter().map(Vec::as_slice).find(|option| option.starts_with(name)).unwrap_or_default();
    DIRECTORIES.map(of).to_vec()
}

//! The overlay that is a container's root: that of the host where it is still mounted, otherwise a new one of the same directories.

use crate::failure::{Doing, Failure, Kind};
use crate::mountinfo::overlay::{self, Layers};
use crate::mountinfo::{Mount, mounts};
use image_format::Bytes;
use image_format::layout::MOUNTS;
use image_format::mounts::FileSystem;
use nix::mount::{MsFlags, mount};
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
    mount_new(overlay, Path::new(PLACE))
        .doing(|| format!("{MOUNTS}: /: mounting the overlay {}, of which the image has no file", overlay.options))
        .map_err(|failure| Failure { kind: Kind::Incompatible, ..failure })?;
    Ok(PLACE.into())
}

/// Mounts an overlay.
///
/// # Errors
/// mount(2)'s. `EINVAL` also where the options are more than that takes, and before Linux 6.7 or with paths of more than 255 bytes.
pub(crate) fn mount_new(overlay: &FileSystem, place: &Path) -> nix::Result<()> {
    let os = |bytes: &Bytes| OsStr::from_bytes(&bytes.0).to_owned();
    if overlay.options.0.len() <= FileSystem::LONGEST_OPTIONS {
        let flags = if overlay.read_only { MsFlags::MS_RDONLY } else { MsFlags::empty() };
        let (source, options) = (os(&overlay.source), os(&overlay.options));
        return mount(Some(source.as_os_str()), place, Some("overlay"), flags, Some(options.as_os_str()));
    }
    let mut options = overlay::one_by_one(&overlay.options.0);
    if overlay.read_only {
        options.extend(b",ro");
    }
    let made = crfs_sys::mount::new(c"overlay", &overlay.source.0, &options, None)?;
    crfs_sys::mount::attach(made.as_fd(), place)
}

/// Where this overlay is mounted, `path` before others.
#[must_use]
pub(crate) fn mounted(overlay: &FileSystem, path: &Path, there: &[Mount]) -> Option<PathBuf> {
    let wanted = layers(overlay);
    let is_it = |mount: &&Mount| {
        let root = mount.kind == "overlay" && mount.root == Path::new("/");
        root && Layers::of(&overlay::normal(mount, &[&mount.path], &|path| path.exists())) == wanted
    };
    let paths: Vec<&Path> = there.iter().filter(is_it).map(|mount| mount.path.as_path()).collect();
    paths.iter().find(|found| **found == path).or(paths.first()).map(|found| found.to_path_buf())
}

/// The directories that an overlay of an image is made of.
#[must_use]
pub(crate) fn layers(overlay: &FileSystem) -> Layers {
    Layers::of(&overlay.options.0.split(|&byte| byte == b',').map(<[u8]>::to_vec).collect::<Vec<_>>())
}

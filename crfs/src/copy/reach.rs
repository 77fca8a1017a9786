//! Where this host has what a container sees, before there is one.

use crate::launch::overlay;
use crate::mountinfo::mounts;
use image_format::layout::MOUNTS;
use image_format::mounts::{Mount, MountKind};
use image_format::{Bytes, Image};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// See the module.
pub(super) struct Reach<'a> {
    image: &'a Image,
    /// None: an overlay that is not mounted.
    root: Option<PathBuf>,
}

impl<'a> Reach<'a> {
    pub(super) fn of(image: &'a Image) -> Self {
        let root = image.manifest.container.root.as_ref().map_or_else(|| PathBuf::from("/"), path);
        let root = match image.root_overlay() {
            None => Some(root),
            Some((_, options)) => {
                overlay::mounted(options, &root, &mounts(&fs::read("/proc/self/mountinfo").unwrap_or_default()))
            }
        };
        Reach { image, root }
    }

    /// Where a path inside the container is found; None for what lies in no file of this host.
    pub(super) fn path(&self, inside: &Bytes) -> Option<PathBuf> {
        let own: Vec<&Mount> = self.image.mounts.iter().filter(|mount| mount.namespace == 0).collect();
        self.below(&path(inside), &own)
    }

    /// With these mounts, of which the last one counts.
    fn below(&self, inside: &Path, mounts: &[&Mount]) -> Option<PathBuf> {
        for (index, mount) in mounts.iter().enumerate().rev() {
            let Ok(rest) = inside.strip_prefix(path(&mount.path)) else { continue };
            let joined = |source: &Bytes| match rest.as_os_str().is_empty() {
                true => path(source),
                false => path(source).join(rest),
            };
            match &mount.kind {
                MountKind::Host => {}
                kind if mount.path.0 == b"/" && kind.is_overlay() => {}
                MountKind::HostPath(host) => return Some(joined(&host.source)),
                MountKind::Bind(bind) => return self.below(&joined(&bind.source), &mounts[..index]),
                _ => return None,
            }
        }
        Some(self.root.as_ref()?.join(inside.strip_prefix("/").unwrap_or(inside)))
    }

    /// What mounts need of the host, and it does not have.
    pub(super) fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        let mut look = |mount: &Mount, path: &Path, remedy: &str| {
            if let Err(error) = fs::symlink_metadata(path) {
                let line = format!("{MOUNTS}: line {}: {}", mount.number, mount.path);
                missing.push(format!("{line}: {}: {error}; {remedy}", path.display()));
            }
        };
        for mount in &self.image.mounts {
            if let MountKind::HostPath(host) = &mount.kind {
                look(mount, &path(&host.source), "put it back, or edit the source");
            }
        }
        if let Some((mount, options)) = self.image.root_overlay().filter(|_| self.root.is_none()) {
            for layer in overlay::layers(options).all() {
                look(mount, layer, "put it back, or edit the options");
            }
        }
        missing
    }
}

fn path(bytes: &Bytes) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&bytes.0))
}

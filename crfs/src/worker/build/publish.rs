//! Making what was copied in the container's frozen tree.

use crate::failure::{Doing, Failure};
use crate::registry::{Container, create_dir};
use image_format::manifest::{PathEntry, PathKind};
use image_format::{Image, layout};
use std::fs;
use std::path::PathBuf;

/// Copies the staged text, and what was queued in pipes, to where the tree of a frozen container is served from.
///
/// # Errors
/// When it cannot be copied; what stood there before is then gone or whole.
pub(super) fn publish(image: &Image, container: &Container) -> Result<(), Failure> {
    let (from, new, to) = (container.staging_dir(), container.dir().join("image.new"), container.image_dir());
    let clear = |path: &PathBuf| match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    clear(&new).doing(|| format!("{}: clearing", new.display()))?;
    create_dir(&new)?;
    let manifest = PathEntry { path: layout::MANIFEST.to_owned(), kind: PathKind::Object, size: None };
    for entry in image.manifest.paths.iter().chain([&manifest]) {
        let name = entry.path.rsplit('/').next().unwrap_or(&entry.path);
        let target = new.join(&entry.path);
        match entry.kind {
            PathKind::Directory => create_dir(&target)?,
            // Page contents and their sums come from the processes themselves now.
            _ if name == layout::MEM_PAGES || name == layout::MEM_SUMS => {}
            _ => {
                fs::copy(from.join(&entry.path), &target).doing(|| format!("{}: copying", target.display()))?;
            }
        }
    }
    clear(&to).doing(|| format!("{}: clearing", to.display()))?;
    fs::rename(&new, &to).doing(|| format!("{}: publishing", to.display()))
}

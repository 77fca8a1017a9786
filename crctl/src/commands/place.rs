//! What a user names: a directory that holds a checkpoint, or a frozen container.

use anyhow::Result;
use crfs::registry::Registry;
use crfs::transport::{Frozen, Source, Uncompressed};
use std::path::Path;

/// Whether an argument means a directory: it has a slash in it, or is one with a manifest. Otherwise it is a container's name.
pub(super) fn is_directory(what: &Path) -> bool {
    what.as_os_str().as_encoded_bytes().contains(&b'/') || what.join(image_format::layout::MANIFEST).is_file()
}

/// The tree behind an argument.
pub(super) fn open(registry: &Registry, what: &Path) -> Result<Box<dyn Source>> {
    if is_directory(what) {
        return Ok(Box::new(Uncompressed::open(what)?));
    }
    Ok(Box::new(Frozen::open(registry, &what.to_string_lossy())?))
}

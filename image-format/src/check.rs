//! What the files of an image say about each other: pure, before anything is created.

use crate::image::ImageError;
use crate::manifest::{FORMAT_VERSION, Manifest};
use crate::types::PAGE_SIZE;

pub(crate) fn content(path: &str, reason: impl Into<String>) -> ImageError {
    ImageError::Content { path: path.to_owned(), reason: reason.into() }
}

/// Checks that this crate understands what the manifest announces.
///
/// # Errors
/// Names the field that does not fit.
pub fn manifest(manifest: &Manifest) -> Result<(), ImageError> {
    let refuse = |reason: String| Err(content(crate::layout::MANIFEST, reason));
    if manifest.format != FORMAT_VERSION {
        return refuse(format!(
            "format {} is not known here: this program reads format {FORMAT_VERSION}",
            manifest.format
        ));
    }
    if manifest.architecture != "x86_64" {
        return refuse(format!(
            "architecture {:?}: an image can only be restored on its own, and this is x86_64",
            manifest.architecture
        ));
    }
    if manifest.page_size != PAGE_SIZE {
        return refuse(format!("page_size {}: format 1 has pages of {PAGE_SIZE} bytes", manifest.page_size));
    }
    if let Some(parent) = &manifest.parent {
        return refuse(format!("parent {parent:?}: this program reads no incremental images"));
    }
    Ok(())
}

//! From an open file to its record.

use crate::resource::descriptor::in_flight::IN_FLIGHT;
use crate::resource::descriptor::place::OpenPlace;
use crate::resource::descriptor::refused::{Refusal, special_regular};
use crate::resource::descriptor::seen::Seen;
use crate::resource::unnamed::Found;
use image_format::files::{IfChanged, RegularFile, Unnamed};
use image_format::{Bytes, Timespec};
use std::os::unix::fs::MetadataExt;

/// Captures a regular file. The container's log is told by the caller.
pub(in crate::resource) fn capture(seen: &Seen, place: &OpenPlace) -> Result<RegularFile, Refusal> {
    if place.is_log(seen) {
        // It stands outside the container's root, and is joined to another file on restore: its path is only shown.
        return Ok(record(seen, place.written(seen).unwrap_or_else(|| Bytes(seen.link.clone()))));
    }
    if let Some(refusal) = special_regular(seen) {
        return Err(refusal);
    }
    Ok(record(seen, place.path(seen, "file")?))
}

/// Whether a regular file has no name any more, so that the image must hold it.
pub(in crate::resource) fn is_unnamed(seen: &Seen) -> bool {
    seen.metadata.nlink() == 0 && !seen.is_path() && special_regular(seen).is_none()
}

/// Captures such a file.
pub(in crate::resource) fn capture_unnamed(
    seen: &Seen,
    place: &OpenPlace,
    unnamed: &mut crate::resource::unnamed::Unnamed,
) -> Result<Unnamed, Refusal> {
    /// `__O_TMPFILE` (include/uapi/asm-generic/fcntl.h, v6.18).
    const TMPFILE: u64 = 0o20_000_000;
    let link = seen.holder.path();
    let found = Found {
        link: &link,
        text: &seen.link,
        metadata: &seen.metadata,
        magic: seen.file_system,
        inside: place.written(seen),
        tmpfile: seen.flags().0 & TMPFILE != 0,
        held: seen.holder.pid != IN_FLIGHT,
    };
    unnamed.find(&found).map(|file| Unnamed { file })
}

fn record(seen: &Seen, path: Bytes) -> RegularFile {
    let ns = i128::from(seen.metadata.mtime()) * 1_000_000_000 + i128::from(seen.metadata.mtime_nsec());
    RegularFile { path, size: seen.metadata.size(), modified: Timespec::from_ns(ns), if_changed: IfChanged::Default }
}

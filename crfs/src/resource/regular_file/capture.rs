//! From an open file to its record.

use crate::resource::descriptor::place::Place;
use crate::resource::descriptor::refused::{Refusal, special_regular};
use crate::resource::descriptor::seen::Seen;
use image_format::files::RegularFile;
use image_format::{Bytes, Timespec};
use std::os::unix::fs::MetadataExt;

/// Captures a regular file. `magic` is that of its file system. The container's log is told by the caller.
pub(in crate::resource) fn capture(seen: &Seen, magic: i64, place: &Place) -> Result<RegularFile, Refusal> {
    if place.is_log(seen) {
        // It stands outside the container's root, and is joined to another file on restore: its path is only shown.
        return Ok(record(seen, place.written(seen).unwrap_or_else(|| Bytes(seen.link.clone()))));
    }
    if let Some(refusal) = special_regular(seen, magic) {
        return Err(refusal);
    }
    Ok(record(seen, place.path(seen, "file")?))
}

fn record(seen: &Seen, path: Bytes) -> RegularFile {
    let ns = i128::from(seen.metadata.mtime()) * 1_000_000_000 + i128::from(seen.metadata.mtime_nsec());
    RegularFile { path, size: seen.metadata.size(), modified: Timespec::from_ns(ns) }
}

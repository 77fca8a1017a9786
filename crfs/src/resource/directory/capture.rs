//! From an open directory to its record.

use crate::resource::descriptor::place::OpenPlace;
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use image_format::files::{DeletedDirectory, Directory, Listing};
use image_format::{Bytes, Octal, Timespec};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

/// File systems whose positions in a directory stay good while it is unchanged (include/uapi/linux/magic.h, v6.18): ext2 to
/// ext4 (hashes of names), xfs (places), btrfs (numbers given once), tmpfs (likewise, since Linux 6.6), overlay (a layer's own, or
/// the number in the merged list).
const STABLE: [i64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630];

/// How the kernel ends the path of what has none any more.
const DELETED: &[u8] = b" (deleted)";

/// Captures a directory.
pub(in crate::resource) fn capture(seen: &Seen, place: &OpenPlace) -> Result<Directory, Refusal> {
    if let Some(deleted) = deleted(&seen.metadata)
        && let Some(path) = place.written(seen)
    {
        // There is nothing to list, wherever a listing goes on.
        return Ok(Directory { path: former(path), listing: None, deleted: Some(deleted) });
    }
    let path = place.path(seen, "directory")?;
    if seen.info.position != 0 && !STABLE.contains(&seen.file_system) {
        return Err(Refusal::new(
            format!("directory {path} was read in part, and where its file system goes on nobody can tell later"),
            "Try again when the program has closed the listing.",
        ));
    }
    Ok(Directory { path, listing: listing(seen), deleted: None })
}

fn listing(seen: &Seen) -> Option<Listing> {
    let metadata = &seen.metadata;
    let modified = Timespec { sec: metadata.mtime(), nsec: u32::try_from(metadata.mtime_nsec()).unwrap_or(0) };
    (seen.info.position != 0).then(|| Listing { inode: metadata.ino(), modified })
}

/// What is kept of a directory that has no name any more.
pub(in crate::resource) fn deleted(metadata: &Metadata) -> Option<DeletedDirectory> {
    let record =
        || DeletedDirectory { mode: Octal(metadata.mode() & 0o7777), uid: metadata.uid(), gid: metadata.gid() };
    (metadata.is_dir() && metadata.nlink() == 0).then(record)
}

/// The path that a deleted directory had.
pub(in crate::resource) fn former(path: Bytes) -> Bytes {
    path.0.strip_suffix(DELETED).map_or_else(|| path.clone(), |path| Bytes(path.to_vec()))
}

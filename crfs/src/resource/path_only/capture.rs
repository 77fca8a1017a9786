//! From a place to its record.

use crate::resource::descriptor::place::OpenPlace;
use crate::resource::descriptor::refused::{Refusal, pseudo_file_system};
use crate::resource::descriptor::seen::Seen;
use image_format::files::{PathOnly, PathType};

/// Whether this is such a place: files and directories have modules of their own.
pub(in crate::resource) fn is_one(seen: &Seen) -> bool {
    seen.is_path() && file_type(seen).is_some()
}

fn file_type(seen: &Seen) -> Option<PathType> {
    match seen.file_type() {
        libc::S_IFLNK => Some(PathType::SymbolicLink),
        libc::S_IFIFO => Some(PathType::Fifo),
        libc::S_IFSOCK => Some(PathType::Socket),
        libc::S_IFBLK => Some(PathType::BlockDevice),
        libc::S_IFCHR => Some(PathType::CharacterDevice),
        _ => None,
    }
}

/// Captures a place.
pub(in crate::resource) fn capture(seen: &Seen, place: &OpenPlace) -> Result<PathOnly, Refusal> {
    let refuse = |of: &str| {
        let reason = format!("{} of the {of} file system, open with O_PATH, cannot be carried", seen.name());
        Refusal::new(reason, "Have the program close it before the freeze.")
    };
    if let Some(of) = pseudo_file_system(seen.file_system) {
        return Err(refuse(of));
    }
    let file_type = file_type(seen).ok_or_else(|| refuse("unknown"))?;
    Ok(PathOnly { path: place.path(seen, "place")?, file_type })
}

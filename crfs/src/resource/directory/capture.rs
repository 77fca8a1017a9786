//! From an open directory to its record.

use crate::resource::descriptor::place::Place;
use crate::resource::descriptor::refused::{Refusal, pseudo_file_system};
use crate::resource::descriptor::seen::Seen;
use image_format::files::Directory;

/// Captures a directory. `magic` is that of its file system.
pub(in crate::resource) fn capture(seen: &Seen, magic: i64, place: &Place) -> Result<Directory, Refusal> {
    let path = place.path(seen, "directory")?;
    if pseudo_file_system(magic) == Some("proc") && path.0 != b"/proc" {
        return Err(Refusal::new(
            format!("directory {path} of the proc file system cannot be carried"),
            "Have the program close it before the freeze.",
        ));
    }
    if seen.info.position != 0 {
        return Err(Refusal::new(
            format!("directory {path} was read in part"),
            "Try again when the program has closed the listing.",
        ));
    }
    Ok(Directory { path })
}

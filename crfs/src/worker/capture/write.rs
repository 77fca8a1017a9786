//! Writes a captured tree.

use super::records::Records;
use crate::captured;
use crate::failure::Failure;
use crate::registry::Container;
use image_format::text::{render_lines, render_object};
use image_format::{Blocker, layout};
use std::collections::BTreeMap;

/// What stands in the place of `manifest` when there are obstacles.
const BLOCKERS: &str = "blockers";

/// Writes the tree, with `manifest`, or `blockers` in its place when there are any.
pub(super) fn tree(container: &Container, records: &Records, blockers: &[Blocker]) -> Result<(), Failure> {
    let mut files = records.image.render();
    if blockers.is_empty() {
        files.insert(layout::MANIFEST.to_owned(), render_object(&records.image.manifest));
    } else {
        files.insert(BLOCKERS.to_owned(), render_lines(blockers));
    }
    let mut entries: BTreeMap<String, Option<&[u8]>> = BTreeMap::new();
    for (path, bytes) in &files {
        entries.insert(path.clone(), Some(bytes));
    }
    for (path, bytes) in &records.contents {
        entries.insert(path.clone(), Some(bytes));
    }
    entries.insert(layout::FILES.to_owned(), None);
    for (&pid, process) in &records.image.processes {
        entries.insert(layout::process_dir(pid), None);
        for tid in process.threads.keys() {
            entries.insert(layout::process_file(pid, &layout::id_name(tid.0)), None);
        }
    }
    captured::write(&container.image_file(), entries.iter().map(|(path, &bytes)| (path.as_str(), bytes)))
}

/// Removes what an attempt left.
pub(super) fn discard(container: &Container) {
    // Reported as a failure already if it matters; what stays is replaced by the next capture.
    let _ = std::fs::remove_file(captured::beside(&container.image_file()));
}

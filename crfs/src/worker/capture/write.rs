//! Writes a captured tree: its contents while the threads are let go of, and into place when all of that is done.

use super::records::Records;
use crate::captured::{self, Writer};
use crate::failure::Failure;
use crate::registry::Container;
use image_format::text::render_lines;
use image_format::{Blocker, layout};

/// What stands in the place of `manifest` when there are obstacles.
const BLOCKERS: &str = "blockers";

/// Writes the tree beside its place, with `manifest`, or `blockers` in its place when there are any. [`Writer::finish`] puts it there.
pub(super) fn tree(container: &Container, records: &Records, blockers: &[Blocker]) -> Result<Writer, Failure> {
    let mut writer = Writer::create(&container.image_file())?;
    records.image.render_each(blockers.is_empty(), |texts| writer.texts(texts));
    if !blockers.is_empty() {
        writer.file(BLOCKERS, &render_lines(blockers));
    }
    for (path, bytes) in &records.contents {
        writer.file(path, bytes);
    }
    writer.directory(layout::FILES);
    for (&pid, process) in &records.image.processes {
        writer.directory(&layout::process_dir(pid));
        for tid in process.threads.keys() {
            writer.directory(&layout::process_file(pid, &layout::id_name(tid.0)));
        }
    }
    Ok(writer)
}

/// Removes what an attempt left.
pub(super) fn discard(container: &Container) {
    // Reported as a failure already if it matters; what stays is replaced by the next capture.
    let _ = std::fs::remove_file(captured::beside(&container.image_file()));
}

//! From an open file or directory of /proc to its record.

use crate::resource::descriptor::place::Place;
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::{Seen, is_writable};
use image_format::files::ProcFile;
use std::os::unix::fs::MetadataExt;

/// Files of a process that hold its address space from when they were opened (`proc_mem_open`, fs/proc/base.c, v6.18).
const OF_AN_ADDRESS_SPACE: [&str; 9] =
    ["auxv", "clear_refs", "environ", "maps", "mem", "numa_maps", "pagemap", "smaps", "smaps_rollup"];

/// Whether a path is that of a kernel parameter. Some parameters stand there once for each namespace, and who looks from another one
/// finds another inode in the same place (`proc_sys_compare`, fs/proc/proc_sysctl.c, v6.18).
pub(super) fn is_sysctl(path: &[u8]) -> bool {
    path.starts_with(b"/proc/sys/")
}

/// Captures a regular file or a directory of a proc file system.
pub(in crate::resource) fn capture(seen: &Seen, place: &Place) -> Result<ProcFile, Refusal> {
    let name = seen.name();
    let refuse = |why: &str| {
        Err(Refusal::new(
            format!("{name} of the proc file system cannot be carried: {why}"),
            "Have the program close it before the freeze.",
        ))
    };
    if is_writable(seen.flags()) {
        return refuse("it is open for writing");
    }
    let below = name.strip_prefix("/proc/").unwrap_or_default();
    let (pid, file) = below.split_once('/').unwrap_or((below, ""));
    let is_of_a_process = pid.starts_with(|first: char| first.is_ascii_digit());
    if is_of_a_process && OF_AN_ADDRESS_SPACE.contains(&file) && !seen.is_path() {
        return refuse("it shows the address space that the process had when it was opened");
    }
    if is_of_a_process && file.starts_with("task/") {
        return refuse(&format!("it is that of a single thread of process {pid}"));
    }
    if is_of_a_process && name.ends_with(" (deleted)") {
        return refuse("its process has ended");
    }
    if is_sysctl(name.as_bytes())
        && let Some(path) = place.written(seen)
        && place.device(&path.0) == Some(seen.metadata.dev())
    {
        return Ok(ProcFile { path });
    }
    Ok(ProcFile { path: place.path(seen, "file")? })
}

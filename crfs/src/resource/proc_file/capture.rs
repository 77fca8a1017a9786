//! From an open file of /proc to its record.

use crate::resource::descriptor::place::Place;
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::{Seen, is_writable};
use image_format::files::ProcFile;

/// Files of a process that hold its address space from when they were opened (`proc_mem_open`, fs/proc/base.c, v6.18).
const OF_AN_ADDRESS_SPACE: [&str; 9] =
    ["auxv", "clear_refs", "environ", "maps", "mem", "numa_maps", "pagemap", "smaps", "smaps_rollup"];

/// Captures a regular file of a proc file system.
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
    let of_a_process = name.strip_prefix("/proc/").and_then(|name| name.split_once('/'));
    if let Some((pid, file)) = of_a_process.filter(|(pid, _)| pid.bytes().all(|byte| byte.is_ascii_digit())) {
        if OF_AN_ADDRESS_SPACE.contains(&file) {
            return refuse("it shows the address space that the process had when it was opened");
        }
        if file.starts_with("task/") {
            return refuse(&format!("it is that of a single thread of process {pid}"));
        }
    }
    Ok(ProcFile { path: place.path(seen, "file")? })
}

//! From an open namespace to its record.

use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use image_format::Pid;
use image_format::files::{Namespace, NamespaceType};
use std::os::unix::fs::MetadataExt;

/// NSFS_MAGIC (include/uapi/linux/magic.h, v6.18).
const NSFS: i64 = 0x6e73_6673;

/// Whether this is such a descriptor.
pub(in crate::resource) fn is_one(seen: &Seen) -> bool {
    seen.file_system == NSFS
}

/// Captures a namespace. `init` is a process that is in the container's own, and `processes` are all, as the container and as the host
/// numbers them. Which of them may be in other ones is looked at elsewhere ([`crate::resource::container`]).
pub(in crate::resource) fn capture(seen: &Seen, init: i32, processes: &[(Pid, i32)]) -> Result<Namespace, Refusal> {
    let name = seen.name();
    let refuse = |why: &str| {
        Refusal::new(
            format!("a descriptor of a namespace ({name}) cannot be carried: {why}"),
            "Have the program close it before the freeze.",
        )
    };
    // Of one that is mounted somewhere the link is a path.
    let number = seen.metadata.ino();
    let is_named = |kind: &NamespaceType| name == format!("{}:[{number}]", kind.name());
    let kind = NamespaceType::ALL.into_iter().find(is_named);
    let kind = kind.ok_or_else(|| refuse("it was not opened through /proc/PID/ns"))?;
    // Looking fails for a process that has ended, or whose first thread has.
    let is_in = |host: i32| {
        let found = std::fs::metadata(format!("/proc/{host}/ns/{}", kind.name()));
        found.is_ok_and(|found| (found.dev(), found.ino()) == seen.inode())
    };
    if is_in(init) {
        return Ok(Namespace { kind, process: None });
    }
    let process = processes.iter().find(|&&(_, host)| is_in(host)).map(|&(pid, _)| pid);
    let process = process.ok_or_else(|| refuse("no process of the container is in it"))?;
    Ok(Namespace { kind, process: Some(process) })
}

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

/// Captures a namespace. `processes` are the container's, as it and as the host numbers them; that all of them are in the same namespaces
/// is looked at elsewhere ([`crate::resource::container`]).
pub(in crate::resource) fn capture(seen: &Seen, processes: &[(Pid, i32)]) -> Result<Namespace, Refusal> {
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
    if !processes.iter().any(|&(_, host)| is_in(host)) {
        return Err(refuse("no process of the container is in it"));
    }
    Ok(Namespace { kind })
}

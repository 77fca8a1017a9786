//! Ipc namespaces that some processes have apart: only with nothing in them.

use crate::failure::Failure;
use crate::mountinfo::mounts;
use crate::resource::proc::Proc;
use crate::resource::{Findings, mqueue, sysv};
use image_format::files::{FileKind, NamespaceType};
use image_format::layout::file_entry;
use image_format::{Image, Pid, layout};

/// Obstacles in the namespace of a process, as the container and as the host number it; `init` is in the container's own.
///
/// The caller must have one thread.
///
/// # Errors
/// When one of them is gone, or the namespace cannot be looked into.
pub(super) fn survey(
    (pid, host): (Pid, i32),
    init: i32,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let mut held: Vec<String> = sysv::held(host)?;
    if let Some(queues) = mqueue::Namespace::look(host)? {
        held.extend(queues.named.iter().map(|(name, _)| format!("the POSIX message queue /{name}")));
        held.extend(queues.changed.iter().map(|(name, value, _)| format!("fs.mqueue.{name} = {value}")));
        let device = format!("{}:{}", libc::major(queues.device), libc::minor(queues.device));
        let mounts = mounts(proc.bytes(format_args!("{init}/mountinfo"))?);
        let shown = mounts.iter().filter(|mount| mount.device == device.as_bytes());
        held.extend(shown.map(|mount| format!("the mount {}", mount.path.display())));
    }
    for what in held {
        findings.block(
            layout::thread_file(pid, pid, "attr"),
            format!("is in another ipc namespace than the container's first process, which has {what}: it is not carried unless it is empty"),
            "Remove it (ipcrm), or set it back (sysctl), before the freeze",
        );
    }
    Ok(())
}

/// Obstacles of open files that show one ipc namespace or the other: which of them cannot be told.
pub(super) fn report(image: &Image, findings: &mut Findings) {
    if image.namespaces.iter().all(|namespace| namespace.kind() != NamespaceType::Ipc) {
        return;
    }
    for (&id, file) in &image.files {
        let FileKind::Pseudo(record) = &file.kind else { continue };
        let path = &record.path;
        if path.0.starts_with(b"/proc/sysvipc/") || path.0.starts_with(b"/proc/sys/") {
            findings.block(
                file_entry(id),
                format!("{path} is open, and may be that of either ipc namespace that processes are in"),
                "Have the program close it before the freeze.",
            );
        }
    }
}

//! Namespaces apart of the types of which not all is carried: ipc with the usual limits, and net with nothing but sockets.

use crate::failure::Failure;
use crate::mountinfo::mounts;
use crate::resource::container::network;
use crate::resource::proc::Proc;
use crate::resource::{Findings, mqueue, sysv};
use image_format::files::{FileKind, NamespaceType};
use image_format::layout::file_entry;
use image_format::{Image, Pid, layout};

/// Obstacles in the namespace of type `kind` that a process is in, which the container and the host number so; `init` is in the container's
/// own.
///
/// The caller must have one thread.
///
/// # Errors
/// When one of them is gone, or the namespace cannot be looked into.
pub(super) fn survey(
    kind: NamespaceType,
    (pid, host): (Pid, i32),
    init: i32,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let held = if kind == NamespaceType::Net { network::held(host, proc)? } else { in_ipc(host, init, proc)? };
    for what in held {
        let kind = kind.name();
        findings.block(
            layout::thread_file(pid, pid, "attr"),
            format!("is in another {kind} namespace than the container's first process, which has {what}, and that is not carried"),
            "Have that ended or removed, or set back (sysctl), before the freeze",
        );
    }
    Ok(())
}

fn in_ipc(host: i32, init: i32, proc: &mut Proc) -> Result<Vec<String>, Failure> {
    let mut held = sysv::changed(host)?;
    if let Some(queues) = mqueue::Namespace::look(host)? {
        held.extend(queues.changed.iter().map(|(name, value, _)| format!("fs.mqueue.{name} = {value}")));
        let device = format!("{}:{}", libc::major(queues.device), libc::minor(queues.device));
        let mounts = mounts(proc.bytes(format_args!("{init}/mountinfo"))?);
        let shown = mounts.iter().filter(|mount| mount.device == device.as_bytes());
        held.extend(shown.map(|mount| format!("the mount {}", mount.path.display())));
    }
    Ok(held)
}

/// Obstacles of open files that show one namespace or another: which of them cannot be told.
pub(super) fn report(image: &Image, findings: &mut Findings) {
    let has = |kind| image.namespaces.iter().any(|namespace| namespace.kind() == kind);
    let (ipc, net) = (has(NamespaceType::Ipc), has(NamespaceType::Net));
    for (&id, file) in &image.files {
        let FileKind::Pseudo(record) = &file.kind else { continue };
        let path = &record.path;
        let parameter = (ipc || net) && path.0.starts_with(b"/proc/sys/");
        let objects = ipc && path.0.starts_with(b"/proc/sysvipc/");
        let network = net && path.0.windows(5).any(|part| part == b"/net/");
        if parameter || objects || network {
            findings.block(
                file_entry(id),
                format!("{path} is open, and may be that of one or another namespace that processes are in"),
                "Have the program close it before the freeze.",
            );
        }
    }
}

//! The uts and ipc namespaces, read from inside: there is no view of them from elsewhere.

use super::super::Findings;
use super::inside::{IPC, UTS, inside};
use crate::failure::{Doing, Failure};
use crate::registry::Record;
use image_format::Bytes;
use image_format::manifest::NamespaceKind;
use std::os::unix::ffi::OsStrExt;

/// The container's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) hostname: Bytes,
    pub(super) domainname: Bytes,
}

/// Joins both namespaces for a moment and reads them.
///
/// The caller must have one thread, and is back in its own namespaces afterwards.
///
/// # Errors
/// When the process is gone, or a namespace cannot be joined.
pub(super) fn visit(record: &Record, init: i32, findings: &mut Findings) -> Result<Names, Failure> {
    inside(init, &[UTS, IPC], || {
        // What the host's namespace holds is nobody's.
        if !record.shares(NamespaceKind::Ipc) {
            queues(findings)?;
        }
        names()
    })
}

/// What a namespace of its own holds.
fn queues(findings: &mut Findings) -> Result<(), Failure> {
    for queue in crfs_sys::mqueue::list().doing(|| "POSIX message queues: listing")? {
        let name = Bytes(queue.as_bytes().to_vec());
        findings.block(
            "files",
            format!("there is a POSIX message queue /{name}, which is not carried yet"),
            "Remove it with mq_unlink",
        );
    }
    Ok(())
}

fn names() -> Result<Names, Failure> {
    let uname = nix::sys::utsname::uname().doing(|| "uname(2)")?;
    Ok(Names {
        hostname: Bytes(uname.nodename().as_bytes().to_vec()),
        domainname: Bytes(uname.domainname().as_bytes().to_vec()),
    })
}

//! The uts and ipc namespaces, read from inside: there is no view of them from elsewhere.

use super::super::Findings;
use crate::failure::{Doing, Failure};
use crate::registry::Record;
use image_format::Bytes;
use image_format::manifest::NamespaceKind;
use nix::sched::{CloneFlags, setns};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

/// The container's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) hostname: Bytes,
    pub(super) domainname: Bytes,
}

/// The files of /proc/sysvipc with what they list and the file of the tree that would hold it.
const SYSV: [(&str, &str, &str); 3] = [
    ("shm", "shared memory segment", "sysv.shm"),
    ("sem", "semaphore set", "sysv.sem"),
    ("msg", "message queue", "sysv.msg"),
];

/// Joins both namespaces for a moment and reads them.
///
/// The caller must have one thread, and is back in its own namespaces afterwards.
///
/// # Errors
/// When the process is gone, or a namespace cannot be joined.
pub(super) fn visit(record: &Record, init: i32, findings: &mut Findings) -> Result<Names, Failure> {
    let join = [("uts", CloneFlags::CLONE_NEWUTS), ("ipc", CloneFlags::CLONE_NEWIPC)];
    let open = |task: &str, name: &str| {
        let path = format!("/proc/{task}/ns/{name}");
        File::open(&path).doing(|| format!("{path}: opening"))
    };
    let mut own = Vec::new();
    for (name, kind) in join {
        own.push((open("self", name)?, kind));
    }
    let mut visited = Ok(Names::default());
    for (name, kind) in join {
        let entered = open(&init.to_string(), name)
            .and_then(|file| setns(file.as_fd(), kind).doing(|| format!("the container's {name} namespace: joining")));
        visited = visited.and_then(|names| entered.map(|()| names));
    }
    let visited = visited.and_then(|_| {
        // What the host's namespace holds is nobody's; what a process has attached is found with that process.
        if !record.shares(NamespaceKind::Ipc) {
            objects(findings)?;
        }
        names()
    });
    for (file, kind) in own {
        setns(file.as_fd(), kind).doing(|| "going back to the own namespaces")?;
    }
    visited
}

/// What a namespace of its own holds.
fn objects(findings: &mut Findings) -> Result<(), Failure> {
    for (name, what, object) in SYSV {
        let path = format!("/proc/sysvipc/{name}");
        // Absent where the kernel has no System V IPC.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for line in text.lines().skip(1) {
            let id = line.split_ascii_whitespace().nth(1).unwrap_or("?");
            findings.block(
                object,
                format!("there is a System V {what} (id {id}), which is not carried yet"),
                "Remove it with ipcrm",
            );
        }
    }
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

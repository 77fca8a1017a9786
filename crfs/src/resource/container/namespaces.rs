//! Namespaces: every task must be in those of the container's first process, but for types of which a process may have one apart; and
//! those must be the container's own.

use super::super::proc::Proc;
use super::super::subject::Subjects;
use super::super::{Findings, pid_namespace, unshared};
use crate::failure::{Doing, Failure};
use crate::registry::Record;
use image_format::layout;
use image_format::manifest::NamespaceKind;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// The links of /proc/PID/ns (`fs/proc/namespaces.c`, v6.18).
const NAMES: [&str; 10] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"];

/// Finds tasks that left.
///
/// # Errors
/// When a task is gone.
pub(super) fn survey(
    record: &Record,
    subjects: &Subjects,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let init = subjects.init;
    let expected = links(proc, &format!("{init}"), &NAMES)?;
    let ours = links(proc, "self", &NAMES)?;
    for ((name, theirs), ours) in NAMES.iter().zip(&expected).zip(&ours) {
        // A restore makes a time namespace whatever there was, so that the clocks go on. A user namespace it may have apart.
        if name.starts_with("time") || *name == "user" {
            continue;
        }
        let kind = NamespaceKind::ALL.into_iter().find(|kind| name.starts_with(kind.name()));
        let is_shared = kind.is_none_or(|kind| record.shares(kind));
        if is_shared != (theirs == ours) {
            let has = if is_shared { "has a namespace of its own" } else { "shares the host's namespace" };
            findings.block(
                "manifest",
                format!("the container's first process {has} of kind {name}, unlike what `crctl run` makes"),
                "Start the program with `crctl run`",
            );
        }
    }
    owned(record, init, findings)?;
    let of_init = subjects.of_init();
    for process in &subjects.processes {
        for thread in &process.threads {
            let leader = thread.host == process.alive().host;
            // A process has one pid and one user namespace for all its threads, and a single thread cannot be in a time
            // namespace of its own. The pids of its next children each may have where it likes.
            let names: &[&str] = match leader {
                // All others hang on one pointer, and it is the same.
                true if thread.has_namespaces_of(of_init) => &["pid", "user"],
                true => &["cgroup", "ipc", "mnt", "net", "pid", "time", "time_for_children", "user", "uts"],
                false => &["cgroup", "ipc", "mnt", "net", "time_for_children", "uts"],
            };
            let is_known = !leader && thread.shares_all_with(process.alive());
            if thread.host == init || is_known || thread.has_ended() {
                continue;
            }
            let path = format!("{}/task/{}", process.host, thread.host);
            let found = links(proc, &path, names)?;
            let first = if leader { found.clone() } else { links(proc, &format!("{}", process.alive().host), names)? };
            for ((name, found), first) in names.iter().zip(&found).zip(&first) {
                let of_init = NAMES.iter().position(|known| known == name).and_then(|index| expected.get(index));
                let is_carried =
                    unshared::is_carried(name) || pid_namespace::is_carried(name, thread) || *name == "user";
                let (same, whose) = match is_carried {
                    true => (Some(first), "other threads of its process"),
                    false => (of_init, "the container's first process"),
                };
                if same != Some(found) {
                    findings.block(
                        layout::thread_file(process.pid, thread.tid, "attr"),
                        format!("is in another namespace of kind {name} than {whose}"),
                        "Do not nest containers or call unshare inside one; nested namespaces are not carried yet",
                    );
                }
            }
        }
    }
    Ok(())
}

/// Finds a pid namespace that was made in a user namespace, of a container that was added from inside of one: a restore makes it before those.
fn owned(record: &Record, init: i32, findings: &mut Findings) -> Result<(), Failure> {
    if record.shares(NamespaceKind::Pid) {
        return Ok(());
    }
    let of_host = std::fs::metadata("/proc/self/ns/user").doing(|| "looking at the own user namespace")?.ino();
    let path = format!("/proc/{init}/ns/pid");
    let open = File::open(&path).doing(|| format!("{path}: opening"))?;
    let owner = crfs_sys::namespaces::owner(open.as_fd()).map(File::from).doing(|| "asking whose a namespace is");
    if owner?.metadata().doing(|| "looking at whose it is")?.ino() != of_host {
        findings.block(
            "manifest",
            "the container's first process has a namespace of kind pid that belongs to a user namespace inside",
            "Have a shell start it: `crctl run NAME -- sh -c 'unshare ...; exit $?'`",
        );
    }
    Ok(())
}

fn links(proc: &mut Proc, task: &str, names: &[&str]) -> Result<Vec<Vec<u8>>, Failure> {
    proc.links(format_args!("{task}/ns"), names)
}

//! Namespaces: every task must be in those of the container's first process, and those must be the container's own.

use super::super::Findings;
use super::super::proc::Proc;
use super::super::subject::{Subjects, Thread};
use crate::failure::Failure;
use crate::registry::Record;
use image_format::layout;
use image_format::manifest::NamespaceKind;

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
        // A restore makes a time namespace whatever there was, so that the clocks go on.
        if name.starts_with("time") {
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
    let first = subjects.processes.iter().flat_map(|process| &process.threads).find(|thread| thread.host == init);
    let first = first.and_then(|thread| thread.record.as_ref());
    let same_as_init = |thread: &Thread| match (first, &thread.record) {
        (Some(first), Some(record)) => record.shared.same_namespaces(&first.shared),
        _ => false,
    };
    for process in &subjects.processes {
        for thread in &process.threads {
            let leader = thread.host == process.alive().host;
            // A process has one pid and one user namespace for all its threads, and a single thread cannot have a time
            // namespace of its own.
            let names: &[&str] = match leader {
                // All others hang on one pointer, and it is the same.
                true if same_as_init(thread) => &["pid", "user"],
                true => &NAMES,
                false => &["cgroup", "ipc", "mnt", "net", "pid_for_children", "uts"],
            };
            let is_known = !leader && thread.shares_all_with(process.alive());
            if thread.host == init || is_known || thread.has_ended() {
                continue;
            }
            let path = format!("{}/task/{}", process.host, thread.host);
            for (name, found) in names.iter().zip(links(proc, &path, names)?) {
                let same = NAMES.iter().position(|known| known == name).and_then(|index| expected.get(index));
                if same != Some(&found) {
                    findings.block(
                        layout::thread_file(process.pid, thread.tid, "attr"),
                        format!("is in another namespace of kind {name} than the container's first process"),
                        "Do not nest containers or call unshare inside one; nested namespaces are not carried yet",
                    );
                }
            }
        }
    }
    Ok(())
}

fn links(proc: &mut Proc, task: &str, names: &[&str]) -> Result<Vec<Vec<u8>>, Failure> {
    proc.links(format_args!("{task}/ns"), names)
}

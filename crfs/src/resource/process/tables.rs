//! Descriptor tables: one a process, and those that threads have for themselves (unshare(2) with CLONE_FILES).

use super::super::Findings;
use super::super::descriptor::TableOf;
use super::super::subject::{Process, Subjects, Thread};
use super::sharing::groups;
use crate::failure::{Doing, Failure};
use crfs_sys::kcmp::{self, Comparison, Object};
use image_format::layout;
use nix::errno::Errno;
use nix::unistd::Pid;

/// The table of each process, which several may share.
#[must_use]
pub fn tables(subjects: &Subjects) -> Vec<TableOf> {
    subjects.processes.iter().map(|process| TableOf::process(process.pid, process.alive().host)).collect()
}

/// The tables that threads have and their processes have not. One that a thread has in common with others is an obstacle: each gets
/// its own again.
///
/// # Errors
/// When the kernel refuses to compare.
pub fn own_tables(subjects: &Subjects, findings: &mut Findings) -> Result<Vec<TableOf>, Failure> {
    let mut own = Vec::new();
    for process in &subjects.processes {
        for thread in &process.threads {
            if has_own(process, thread)? {
                own.push(TableOf { process: process.pid, owner: thread.tid, host: thread.host });
            }
        }
    }
    if own.is_empty() {
        return Ok(own);
    }
    let all = tables(subjects).into_iter().chain(own.iter().copied());
    for mut group in groups(Object::Files, all.map(|table| (table, table.host)).collect())? {
        group.sort_unstable();
        for (at, table) in group.iter().enumerate().filter(|(_, table)| table.owner != table.process) {
            let other = group[usize::from(at == 0)].owner;
            findings.block(
                layout::thread_file(table.process, table.owner, "attr"),
                format!(
                    "has its descriptor table in common with task {other} but not with the first thread of its process"
                ),
                "Call unshare in each thread that is to have its own",
            );
        }
    }
    Ok(own)
}

fn has_own(process: &Process, thread: &Thread) -> Result<bool, Failure> {
    let first = process.alive();
    // What has ended has let go of all it had.
    if thread.host == first.host || thread.has_ended() || thread.shares_all_with(first) {
        return Ok(false);
    }
    match kcmp::compare(Object::Files, Pid::from_raw(first.host), Pid::from_raw(thread.host)) {
        // Ended meanwhile.
        Err(Errno::ESRCH) => Ok(false),
        compared => {
            let object = || layout::thread_file(process.pid, thread.tid, "attr");
            let compared = compared.doing(|| format!("{}: comparing Files with the first thread", object()))?;
            Ok(compared != Comparison::Equal)
        }
    }
}

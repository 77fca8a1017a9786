//! Captures the zombies of a thread.

use super::super::Findings;
use super::super::proc::{Proc, Stat, Status};
use super::super::signal;
use super::super::subject::{InnerIds, Process, Subjects, Thread};
use crate::failure::Failure;
use image_format::layout;
use image_format::process::Zombie;
use image_format::types::{Bytes, Pid};

/// What is told of a thread's children.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// `wait.zombies`.
    pub zombies: Vec<Zombie>,
    /// Those that live, as the host numbers them.
    pub living: Vec<i32>,
    /// Which of the zombies were in pid namespaces below the container's.
    pub inside: Vec<Inside>,
}

/// A zombie of a pid namespace below the container's.
#[derive(Clone, Debug)]
pub struct Inside {
    /// As the host numbers it.
    pub host: i32,
    /// Its ids there.
    pub inner: InnerIds,
    /// Its own id, and those of its group and session, in the container.
    pub ids: [Pid; 3],
}

/// Reads them, zombies ascending by pid; also finds living children that are not of the container.
///
/// # Errors
/// When the thread is gone.
pub fn capture(
    process: &Process,
    thread: &Thread,
    subjects: &Subjects,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<Children, Failure> {
    if thread.record.as_ref().is_some_and(|record| !record.has_children) {
        return Ok(Children::default());
    }
    let text = proc.text(format_args!("{}/task/{}/children", process.host, thread.host))?;
    let children: Vec<i32> = text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
    let Children { mut zombies, mut living, mut inside } = Children::default();
    for child in children {
        if subjects.ids.contains_key(&child) {
            living.push(child);
            continue;
        }
        let stat = Stat::read(proc, &format!("{child}/stat"))?;
        let mut status = Status::read(proc, &format!("{child}/status"))?;
        if stat.state != b'Z' {
            findings.block(
                layout::thread_file(process.pid, thread.tid, "wait.zombies"),
                format!("its child {child} (as the host numbers it) lives and is not in the container's cgroup"),
                "Move it back, or end it",
            );
            continue;
        }
        let inner = InnerIds::take(&mut status, subjects.levels);
        let id = |ids: &[u32]| Pid(ids.last().copied().unwrap_or(0));
        let ids @ [pid, group, session] = [&status.ns_pid, &status.ns_pgid, &status.ns_sid].map(|ids| id(ids));
        if !inner.task.is_empty() {
            inside.push(Inside { host: child, inner, ids });
        }
        zombies.push(Zombie {
            pid,
            group,
            session,
            name: Bytes(stat.comm),
            uid: status.uid,
            gid: status.gid,
            exit_signal: signal::from_number(stat.exit_signal),
            status: stat.exit_code,
        });
    }
    zombies.sort_by_key(|zombie| zombie.pid);
    Ok(Children { zombies, living, inside })
}

//! The tasks of a container, with what /proc says of them: what every capture and every survey starts from.

use super::proc::{Proc, Stat, Status};
use crate::failure::Failure;
use crate::registry::Record;
use image_format::Pid;
use std::collections::BTreeMap;

/// The container's processes.
#[derive(Clone, Debug, Default)]
pub struct Subjects {
    /// The first process of the container, as the host numbers it: the one whose namespaces are all the others' too.
    pub init: i32,
    /// Whether it is the root of the tree, and pid 1 of a pid namespace of its own; otherwise the tree may have several.
    pub has_init: bool,
    /// Ascending by [`Process::pid`].
    pub processes: Vec<Process>,
    /// Container ids of all tasks, by host id.
    pub ids: BTreeMap<i32, Pid>,
}

/// A process that is not a zombie.
#[derive(Clone, Debug)]
pub struct Process {
    /// Inside the container.
    pub pid: Pid,
    /// As the host numbers it.
    pub host: i32,
    /// The leader first, the others ascending.
    pub threads: Vec<Thread>,
}

/// A thread.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Inside the container.
    pub tid: Pid,
    /// As the host numbers it.
    pub host: i32,
    /// /proc/PID/task/TID/stat.
    pub stat: Stat,
    /// /proc/PID/task/TID/status.
    pub status: Status,
}

impl Process {
    /// The group leader.
    ///
    /// # Panics
    /// Never: a process is only made with one.
    #[must_use]
    pub fn leader(&self) -> &Thread {
        &self.threads[0]
    }
}

/// Reads who a container's processes are. One that is gone is left out: running tasks end at any moment, and frozen ones when they are
/// killed.
///
/// # Errors
/// When a task that lives cannot be read.
pub fn collect(proc: &mut Proc, record: &Record) -> Result<Subjects, Failure> {
    let mut subjects = Subjects { has_init: record.has_init(), ..Subjects::default() };
    for host in record.processes()? {
        match process(proc, host) {
            Ok(Some(process)) => subjects.processes.push(process),
            Ok(None) => {}
            Err(_) if is_gone(&format!("/proc/{host}")) => {}
            Err(failure) => return Err(failure),
        }
    }
    subjects.processes.sort_by_key(|process| (process.pid, process.host));
    let threads = subjects.processes.iter().flat_map(|process| &process.threads);
    subjects.ids = threads.map(|thread| (thread.host, thread.tid)).collect();
    subjects.init = first(record, &subjects.processes);
    Ok(subjects)
}

/// The process that was written down as the first. Where it is no pid 1, the others outlive it: then it is the one with the lowest pid.
fn first(record: &Record, processes: &[Process]) -> i32 {
    let recorded = record.init.map_or(0, |init| init.pid);
    let lives = processes.iter().any(|process| process.host == recorded);
    match processes.first() {
        Some(lowest) if !record.has_init() && !lives => lowest.host,
        _ => recorded,
    }
}

/// Whether a task has ended: its directory is away, or it has no more than its exit status.
pub(crate) fn is_gone(directory: &str) -> bool {
    let text = std::fs::read(format!("{directory}/stat")).unwrap_or_default();
    let state = text.iter().rposition(|&byte| byte == b')').and_then(|at| text.get(at + 2));
    matches!(state, None | Some(b'Z' | b'X'))
}

fn process(proc: &mut Proc, host: i32) -> Result<Option<Process>, Failure> {
    let mut threads = Vec::new();
    for tid in proc.numbers(format_args!("{host}/task"))? {
        match thread(proc, host, tid) {
            Ok(thread) => threads.push(thread),
            Err(_) if is_gone(&format!("/proc/{host}/task/{tid}")) => {}
            Err(failure) => return Err(failure),
        }
    }
    threads.sort_by_key(|thread| (thread.host != host, thread.tid));
    let alive = threads.iter().any(|thread| !matches!(thread.stat.state, b'Z' | b'X'));
    let leader = threads.first().filter(|leader| leader.host == host && alive).map(|leader| leader.tid);
    Ok(leader.map(|pid| Process { pid, host, threads }))
}

fn thread(proc: &mut Proc, process: i32, host: i32) -> Result<Thread, Failure> {
    let stat = Stat::read(proc, &format!("{process}/task/{host}/stat"))?;
    let status = Status::read(proc, &format!("{process}/task/{host}/status"))?;
    Ok(Thread { tid: Pid(status.own_pid()), host, stat, status })
}

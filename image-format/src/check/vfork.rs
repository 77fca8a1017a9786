//! Threads that wait in vfork(2) for a child: whom they wait for, and what cannot be carried with them.
//!
//! Such a thread makes its child with its last call before it is let go of. What only it could do for itself after that cannot be done.

use super::Findings;
use crate::image::{Image, ProcessImage, ThreadImage};
use crate::layout::thread_file;
use crate::process::JobControl;
use crate::seccomp::Seccomp;
use crate::signal::PendingSignal;
use crate::thread::Resume;
use crate::types::Pid;

/// clone, vfork and clone3 (arch/x86/entry/syscalls/syscall_64.tbl, v6.18).
const CALLS: [u64; 3] = [56, 58, 435];
const SIGSTOP: u8 = 19;

/// A thread that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its process.
    pub process: Pid,
    /// The thread.
    pub thread: Pid,
    /// The process that it waits for.
    pub child: Pid,
}

/// Every thread that waits in vfork, in the order of processes and threads.
pub fn waiting(image: &Image) -> impl Iterator<Item = Waiting> {
    let threads = image.processes.iter().flat_map(|(&pid, process)| process.threads.iter().map(move |it| (pid, it)));
    threads.filter_map(|(process, (&thread, record))| match record.frame.syscall.as_ref()?.resume {
        Resume::Vfork(child) => Some(Waiting { process, thread, child }),
        _ => None,
    })
}

pub(super) fn check(image: &Image, findings: &mut Findings) {
    for waiting in waiting(image) {
        let Waiting { process: pid, thread: tid, child } = waiting;
        let path = thread_file(pid, tid, "thread.frame");
        let number = records(image, waiting).map(|(_, thread)| thread.frame.registers.orig_rax.0);
        if let Some(number) = number.filter(|number| !CALLS.contains(number)) {
            findings.add(&path, format!("syscall.resume.vfork: call {number} makes no process"));
            continue;
        }
        match image.processes.get(&child).map(|child| &child.process) {
            None => {
                findings.add(&path, format!("syscall.resume.vfork: there is no process {child}"));
            }
            Some(made) if made.parent != pid || made.parent_thread.unwrap_or(pid) != tid => {
                findings.add(&path, format!("syscall.resume.vfork: process {child} is not a child of thread {tid}"));
            }
            Some(_) => {
                for reason in problems(image, waiting) {
                    findings.add(&path, format!("waits in vfork for process {child} and {reason}"));
                }
            }
        }
    }
}

/// What threads that wait have and cannot get back, in words.
#[must_use]
pub fn not_carried(image: &Image) -> Vec<(Waiting, &'static str)> {
    waiting(image).flat_map(|waiting| problems(image, waiting).into_iter().map(move |why| (waiting, why))).collect()
}

fn problems(image: &Image, waiting: Waiting) -> Vec<&'static str> {
    let found = records(image, waiting).map(|(process, thread)| reasons(image, waiting, process, thread).collect());
    found.unwrap_or_default()
}

fn records(image: &Image, waiting: Waiting) -> Option<(&ProcessImage, &ThreadImage)> {
    let process = image.processes.get(&waiting.process)?;
    Some((process, process.threads.get(&waiting.thread)?))
}

fn reasons<'a>(
    image: &'a Image,
    waiting: Waiting,
    process: &'a ProcessImage,
    thread: &'a ThreadImage,
) -> impl Iterator<Item = &'static str> {
    let apart = |pid: Pid| {
        image.mounts_of_process(pid) != 0
            || image.namespaces.iter().any(|namespace| namespace.joined_by().any(|member| member == pid))
    };
    let credentials = &thread.attr.credentials;
    let is_root = [credentials.uid, credentials.gid] == [[0; 4]; 2]
        && credentials.effective == credentials.permitted
        && credentials.permitted == credentials.bounding
        && credentials.securebits.0 == 0;
    let stops = |signal: &PendingSignal| signal.signal.0 == SIGSTOP;
    [
        (!is_root, "is not root with all capabilities"),
        (apart(waiting.process) || apart(waiting.child), "it or that process is in namespaces of its own"),
        (thread.fds.is_some() || thread.attr.directories.is_some(), "has descriptors or directories of its own"),
        (thread.attr.seccomp != Seccomp::None, "has system call filters"),
        (process.process.job_control != JobControl::Running, "its process is stopped by job control"),
        (process.pending.iter().chain(&thread.pending).any(stops), "its process is about to stop (SIGSTOP)"),
        (process.threads.values().any(|thread| !thread.zombies.is_empty()), "its process has children that have ended"),
    ]
    .into_iter()
    .filter_map(|(is_so, reason)| is_so.then_some(reason))
}

//! Parents that wait in vfork(2) for a child that does not get to its exec.
//!
//! Such a parent can neither be stopped nor read until its child has called exec or ended (`wait_for_vfork_done` in `kernel/fork.c`,
//! v6.18). Mostly that takes microseconds, and the container is let run for as long. A child that stands at the same place however
//! often it was let run is stopped, or waits for something: then no freeze can succeed.

use super::super::Findings;
use super::super::proc::Proc;
use super::super::subject::Subjects;
use crfs_sys::kcmp::{self, Comparison, Object};
use image_format::layout;
use nix::unistd::Pid;

/// How often a child that is let run is met in one wait before it is taken to stay: twenty times in 0.4 s.
const PATIENCE: u32 = 20;
/// The same of one that would run: ten times as long, since it may be others that have the processors.
const RUNNING_PATIENCE: u32 = 200;
/// What /proc/PID/syscall says of a task that runs, or is ready to (proc_pid_syscall(5)).
const RUNNING: &str = "running";
const CALLS: [i64; 3] = [libc::SYS_vfork, libc::SYS_clone, libc::SYS_clone3];

/// A thread that cannot be stopped, and where its child was met so many times in a row, if it waits for one.
#[derive(Debug)]
pub(crate) struct Vfork {
    parent: i32,
    child: i32,
    /// System call, stack and instruction.
    place: String,
    times: u32,
}

impl Vfork {
    /// A thread, as the host numbers it.
    pub(crate) fn of(parent: i32) -> Self {
        Vfork { parent, child: 0, place: String::new(), times: 0 }
    }

    /// Looks once more. True: its child was at the same place too often.
    pub(crate) fn stays(&mut self, proc: &mut Proc) -> bool {
        let Some(child) = child(self.parent, proc) else { return false };
        let place = proc.text(format_args!("{child}/syscall")).unwrap_or_default();
        if (self.child, self.place.as_str()) != (child, place) {
            (self.child, self.place, self.times) = (child, place.to_owned(), 0);
        }
        self.times += 1;
        self.times >= if self.place.trim_end() == RUNNING { RUNNING_PATIENCE } else { PATIENCE }
    }
}

/// The parents whose children stay where they are.
#[derive(Debug, Default)]
pub(crate) struct Stuck(Vec<Vfork>);

impl Stuck {
    pub(crate) fn add(&mut self, vfork: Vfork) {
        self.0.push(vfork);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names them. False: none is left.
    pub(crate) fn report(&self, subjects: &Subjects, findings: &mut Findings) -> bool {
        let mut any = false;
        for Vfork { parent, child, .. } in &self.0 {
            let process = subjects.processes.iter().find(|process| process.threads.iter().any(|it| it.host == *parent));
            // One that is gone by now has let the other go.
            let (Some(process), Some(child)) = (process, subjects.ids.get(child)) else { continue };
            findings.block(
                layout::process_file(process.pid, "process"),
                format!("waits in vfork for process {child}, which is stopped or waits before its exec"),
                "Let that process go on to exec or exit, or end it",
            );
            any = true;
        }
        any
    }
}

/// The child that a thread waits for in vfork: one that it made and that has its memory; without such a one the youngest, as
/// CLONE_VFORK does not take CLONE_VM.
fn child(parent: i32, proc: &mut Proc) -> Option<i32> {
    let call = proc.text(format_args!("{parent}/syscall")).ok()?.split(' ').next()?.parse().ok()?;
    if !CALLS.contains(&call) {
        return None;
    }
    let children = proc.text(format_args!("{parent}/task/{parent}/children")).ok()?.to_owned();
    let shares =
        |child: &i32| kcmp::compare(Object::Vm, Pid::from_raw(parent), Pid::from_raw(*child)) == Ok(Comparison::Equal);
    let mut children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
    let youngest = children.clone().next_back();
    children.find(shares).or(youngest)
}

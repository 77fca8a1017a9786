//! Parents that wait in vfork(2) for a child that does not get to its exec.
//!
//! - **What:** a thread in the middle of vfork(2), or clone(2) with CLONE_VFORK, and the child that it waits for.
//! - **Where:** `wait_for_vfork_done` in `kernel/fork.c`, v6.18: it counts as frozen, and does not stop for a tracer until its child has called
//!   exec or ended.
//! - **Read:** mostly that takes microseconds, and the container is let run for as long. A child that stands at the same place however
//!   often it was let run is stopped, or waits for something: then the parent is read from the kernel's memory, where it stands.
//! - **Made again:** by a vfork of its own, its last call, in which it is left (`worker/build/vfork.rs`).
//! - **Refused:** what such a thread would have to do for itself after that call: [`image_format::check::not_carried`].

use super::super::Findings;
use super::super::proc::Proc;
use crfs_sys::kcmp::{self, Comparison, Object};
use image_format::check::Waiting;
use image_format::{Image, layout};
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

    /// Parents and the children that they wait for, as the host numbers both.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (i32, i32)> {
        self.0.iter().map(|vfork| (vfork.parent, vfork.child))
    }
}

/// Names what cannot be carried with a thread that waits.
pub(crate) fn report(image: &Image, findings: &mut Findings) {
    for (Waiting { process, thread, child }, reason) in image_format::check::not_carried(image) {
        let path = layout::thread_file(process, thread, "thread.frame");
        let reason = format!("waits in vfork for process {child} and {reason}");
        findings.block(path, reason, "Let that process go on to exec or exit, or end it");
    }
}

/// The child that a thread waits for in vfork: one that it made and that has its memory; without such a one the youngest, as
/// CLONE_VFORK does not take CLONE_VM.
pub(crate) fn child(parent: i32, proc: &mut Proc) -> Option<i32> {
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

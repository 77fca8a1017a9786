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
/// include/uapi/linux/sched.h, v6.18.
const CLONE_VM: u64 = 0x100;

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

/// The child that a thread waits for in vfork: the youngest of those that have its memory, or of those that have not, as its call says. It has made
/// none since; one that others gave it since (CLONE_PARENT, or by their end) is taken for it if it has the same memory.
pub(crate) fn child(parent: i32, proc: &mut Proc) -> Option<i32> {
    let shares_memory = shares_memory(parent, proc.text(format_args!("{parent}/syscall")).ok()?)?;
    let children = proc.text(format_args!("{parent}/task/{parent}/children")).ok()?.to_owned();
    let is_it = |child: &i32| {
        let compared = kcmp::compare(Object::Vm, Pid::from_raw(parent), Pid::from_raw(*child));
        (compared == Ok(Comparison::Equal)) == shares_memory
    };
    children.split_ascii_whitespace().rev().filter_map(|child| child.parse().ok()).find(is_it)
}

/// Whether the call that a thread is in makes a process with CLONE_VM, by what proc_pid_syscall(5) says: number and arguments. None: it
/// makes none.
fn shares_memory(thread: i32, syscall: &str) -> Option<bool> {
    let mut words = syscall.split_ascii_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let mut first = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let flags = match number {
        libc::SYS_vfork => CLONE_VM,
        libc::SYS_clone => first()?,
        libc::SYS_clone3 => {
            let mut flags = [0; 8];
            let read = first().map(|address| crfs_sys::memory::read(Pid::from_raw(thread), address, &mut flags));
            // Nobody has to keep them while the call lasts; most calls share.
            if matches!(read, Some(Ok(_))) { u64::from_ne_bytes(flags) } else { CLONE_VM }
        }
        _ => return None,
    };
    Some(flags & CLONE_VM != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_tell_whether_memory_is_shared() {
        let thread = std::process::id().cast_signed();
        let says = |syscall: &str| shares_memory(thread, syscall);
        assert_eq!(says("58 0x0 0x0 0x7ffc 0x401000"), Some(true));
        assert_eq!(says("56 0x4111 0x0 0x7ffc 0x401000"), Some(true));
        assert_eq!(says("56 0x4011 0x0 0x7ffc 0x401000"), Some(false));
        assert_eq!([says("running"), says("-1 0x0 0x0"), says("61 0x100"), says("")], [None; 4]);
        for (flags, shared) in [(0x4100u64, true), (0x4000, false)] {
            let at = &raw const flags;
            assert_eq!(says(&format!("435 {:#x} 0x58 0x0", at.addr())), Some(shared));
        }
    }
}

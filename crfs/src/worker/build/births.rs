//! Processes made, each with its ids, and put into sessions and groups and onto terminals.

use super::builder::{Builder, Task};
use crate::failure::{Doing, Failure, Kind};
use crate::plan::{Birth, BornInto, Role, Terminal};
use crate::resource::process::restore as process;
use crate::resource::{pid_namespace, tty};
use crfs_tracee::{Batch, Injector, Spawn};
use image_format::pid_namespaces::PidSpace;
use image_format::{Pid, layout};
use std::fs::File;

const PR_SET_CHILD_SUBREAPER: u64 = 36;

impl Builder<'_> {
    pub(super) fn spawn(&mut self, pid: Pid) -> Result<(), Failure> {
        let birth = self.plan.births.get(&pid).ok_or_else(|| Failure::new(Kind::System, "no birth is planned"))?;
        if let Some(creator) = birth.creator {
            let exit_signal = match (&birth.role, self.copy.image.processes.get(&pid)) {
                (Role::Live, Some(process)) => process.process.exit_signal.map_or(0, |signal| i32::from(signal.0)),
                (Role::Zombie(_), _) => {
                    self.zombie(pid).and_then(|(_, z)| z.exit_signal).map_or(0, |signal| i32::from(signal.0))
                }
                _ => libc::SIGCHLD,
            };
            if let BornInto::New(space) = birth.born_into {
                self.begin_late(space)?;
            }
            let set_tid = pid_namespace::numbers(&birth.ids)?;
            let flags = process::clone_flags(birth.shares, birth.clone_parent);
            let begins = matches!(birth.born_into, BornInto::New(space) if !self.pid_namespaces.is_there(space));
            let flags = flags | if begins { pid_namespace::NEW } else { 0 };
            // A sibling has its maker's exit signal, and clone3 takes no other.
            let exit_signal = if birth.clone_parent { 0 } else { exit_signal };
            let spawn = Spawn { flags, exit_signal, set_tid, ..Spawn::default() };
            let (own, link) = (self.aim(creator, birth)?, self.plan.link_fd);
            let injector = if let Some(waiting) = self.waits_for(pid) {
                self.vfork(waiting, birth, &spawn)?
            } else {
                let creator = self.thread(creator, birth.creator_thread.unwrap_or(creator))?;
                let child = creator.spawn(&spawn, format!("clone3 process {pid}"));
                let injector = child.and_then(|child| Injector::of_child(child, creator));
                let injector = injector.doing(|| layout::process_dir(pid))?;
                if let Some(own) = own {
                    let mut batch = Batch::new();
                    pid_namespace::join(&mut batch, &own, link);
                    creator.run(&batch).doing(|| layout::process_dir(pid))?;
                }
                injector
            };
            let injector = self.without_actions(creator, birth, injector)?;
            self.pid_namespaces.keep(pid, injector.tid())?;
            if self.copy.image.processes.contains_key(&pid) {
                let maker = birth.creator.filter(|maker| self.copy.image.processes.contains_key(maker));
                self.cgroups.place(pid, injector.tid().raw(), maker.filter(|_| birth.creator_thread.is_none()))?;
            }
            self.tasks.insert(pid, Task::new(pid, injector));
            if self.ipc.is_any() && self.copy.image.processes.contains_key(&pid) {
                let mut batch = Batch::new();
                self.ipc.join(&mut batch, pid, link);
                self.inject(pid, &batch)?;
            }
        }
        let mut batch = Batch::new();
        self.time_namespaces.join(&mut batch, pid, self.plan.link_fd)?;
        if !batch.is_empty() {
            self.inject(pid, &batch)?;
            let host = self.host(pid)?;
            self.time_namespaces.keep(pid, host)?;
        }
        let wanted = self.copy.image.processes.get(&pid).and_then(|process| process.process.parent_thread);
        if let Some(thread) = wanted.filter(|_| birth.creator_thread.is_none()) {
            let path = layout::process_file(pid, "process");
            self.notes.push(format!(
                "{path}: is a child of its parent's first thread now, not of thread {thread}, which has system call filters, is in a user namespace or did not make it"
            ));
        }
        // Before any orphan looks for a reaper.
        if self.copy.image.processes.get(&pid).is_some_and(|process| process.attr.child_subreaper) {
            self.leader(pid)?
                .call(libc::SYS_prctl, &[PR_SET_CHILD_SUBREAPER, 1], "prctl(PR_SET_CHILD_SUBREAPER)")
                .doing(|| layout::process_dir(pid))?;
        }
        Ok(())
    }

    /// Begins a pid namespace that belongs to a user namespace inside and lies in another one, in which there is somebody by now.
    pub(super) fn begin_late(&mut self, space: PidSpace) -> Result<(), Failure> {
        let Some(first) = self.pid_namespaces.begun_beside(space) else { return Ok(()) };
        let host = self.host(first)?;
        self.pid_namespaces.begin(space, host)
    }

    /// Has the next child of a creator born into a namespace below its own, if it is to be. Returns the creator's own then.
    fn aim(&mut self, creator: Pid, birth: &Birth) -> Result<Option<File>, Failure> {
        let space = match birth.born_into {
            BornInto::Inner(space) => space,
            // It was made before anybody was in it.
            BornInto::New(space) if self.pid_namespaces.is_there(space) => space,
            BornInto::New(_) | BornInto::Creators => return Ok(None),
        };
        let mut batch = Batch::new();
        self.pid_namespaces.aim(&mut batch, space, self.plan.link_fd)?;
        let creator = self.thread(creator, birth.creator_thread.unwrap_or(creator))?;
        let own = pid_namespace::open(creator.tid())?;
        creator.run(&batch).doing(|| layout::process_dir(birth.pid))?;
        Ok(Some(own))
    }

    pub(super) fn session(&mut self, pid: Pid) -> Result<(), Failure> {
        let birth = self.plan.births.get(&pid);
        // The first process was made a leader with its surroundings.
        if birth.is_some_and(|birth| birth.own_session && birth.creator.is_some()) {
            self.leader(pid)?.call(libc::SYS_setsid, &[], "setsid").doing(|| layout::process_dir(pid))?;
        }
        Ok(())
    }

    pub(super) fn group(&mut self, pid: Pid) -> Result<(), Failure> {
        let Some(birth) = self.plan.births.get(&pid) else { return Ok(()) };
        let Some(group) = birth.group else { return Ok(()) };
        let by = birth.creator.filter(|_| birth.group_by_creator).unwrap_or(pid);
        let (member, group) = (self.seen_by(by, pid)?, self.seen_by(by, group)?);
        self.leader(by)?
            .call(libc::SYS_setpgid, &[member.0.into(), group.0.into()], "setpgid")
            .map(drop)
            .doing(|| layout::process_dir(pid))
    }

    pub(super) fn terminal(&mut self, pid: Pid) -> Result<(), Failure> {
        let Some(Terminal::Taken(number)) = self.plan.births.get(&pid).map(|birth| birth.terminal) else {
            return Ok(());
        };
        let mut batch = Batch::new();
        tty::inject::take(&mut batch, self.opened.terminals.slave(number)?, self.plan.link_fd);
        self.inject(pid, &batch)
    }

    pub(super) fn foreground(&mut self, pid: Pid) -> Result<(), Failure> {
        let mut batch = Batch::new();
        match self.plan.births.get(&pid).map(|birth| birth.terminal) {
            Some(Terminal::Taken(number)) => {
                let Some(group) = self.copy.image.ttys.get(&number).and_then(|pty| pty.foreground) else {
                    return Ok(());
                };
                let group = self.seen_by(pid, group)?;
                tty::inject::foreground(&mut batch, self.opened.terminals.slave(number)?, self.plan.link_fd, group);
            }
            Some(Terminal::GivenUp(number)) => {
                tty::inject::give_up(&mut batch, self.opened.terminals.slave(number)?, self.plan.link_fd);
            }
            Some(Terminal::Inherited) | None => return Ok(()),
        }
        self.inject(pid, &batch)
    }
}

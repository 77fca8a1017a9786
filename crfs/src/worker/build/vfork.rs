//! Threads that wait in vfork(2): left in the middle of a call of their own.
//!
//! A thread makes the child it is to wait for with CLONE_VFORK, and is reported in the middle of that call. There it stays, a tracee like any
//! other with its final registers, until it is let go of and begins to wait. It can run nothing any more: what it has for itself it is given before,
//! and if it is the first of its process, a stand-in does the rest in its place, a thread more that ends with the build.

use super::builder::{Builder, STOP_PATIENCE};
use crate::failure::{Doing, Failure, Kind};
use crate::plan::{Birth, BornInto, Role};
use crate::resource::{registers, signal, thread, thread_controls};
use crfs_tracee::{Batch, Injector, RemoteAddress, Spawn, Stopped, Tracee, end_thread};
use image_format::check::{Waiting, waiting};
use image_format::memory::Protection;
use image_format::signal::Signal;
use image_format::{Pid, ProcessImage, layout};
use std::time::Instant;

/// The `syscall` instruction.
const SYSCALL: [u8; 2] = [0x0f, 0x05];
/// Every kernel has at least these ids.
const HIGHEST_ID: u32 = 32_767;
/// Of ids that may be in use outside of a pid namespace of the container's own.
const TRIES: u32 = 64;
const UNREGISTER: u64 = 1;
const ROBUST_LIST_SIZE: u64 = 24;

impl Builder<'_> {
    /// The thread that is to wait in vfork for a process.
    pub(super) fn waits_for(&self, child: Pid) -> Option<Waiting> {
        waiting(&self.copy.image).find(|waiting| waiting.child == child)
    }

    /// Whether a thread stands in its vfork; what is injected in its name then is its stand-in.
    pub(super) fn waits(&self, pid: Pid, tid: Pid) -> bool {
        self.tasks.get(&pid).is_some_and(|task| task.waiting.contains_key(&tid))
    }

    /// Makes a process whose parent's thread waits for it from here on.
    pub(super) fn vfork(&mut self, waiting: Waiting, birth: &Birth, spawn: &Spawn) -> Result<Injector, Failure> {
        let Waiting { process: pid, thread: tid, child } = waiting;
        let path = || layout::thread_file(pid, tid, "thread.frame");
        let makes = birth.creator == Some(pid) && birth.creator_thread.unwrap_or(pid) == tid;
        let helps = self.plan.births.values().any(|birth| birth.role == Role::Helper { reaper: pid });
        if !makes || birth.clone_parent || birth.born_into != BornInto::Creators || helps {
            let reason = format!("{}: waits in vfork for process {child}, which it cannot make here", path());
            return Err(Failure::new(Kind::BadImage, reason));
        }
        self.before_vfork(pid, tid)?;
        let stand_in = if tid == pid { Some(self.stand_in(pid)?) } else { None };
        let parent = self.tasks.get_mut(&pid).and_then(|task| task.injected.remove(&tid));
        let parent = parent.ok_or_else(|| Failure::new(Kind::System, path()))?;
        let made = parent.vfork(spawn, format!("clone3 process {child}")).doing(path)?;
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.injected.extend(stand_in.map(|injector| (pid, injector)));
            task.waiting.insert(tid, made.parent);
        }
        let mut injector = Injector::of_child(made.child, self.leader(pid)?).doing(path)?;
        let rseq = self.image(pid)?.threads.get(&tid).and_then(|thread| thread.attr.rseq.as_ref());
        if let Some(rseq) = rseq.filter(|_| birth.shares.memory.is_none()) {
            // A copy of the memory has that of its maker, and can have one only.
            let args = [rseq.address.0, rseq.size.into(), UNREGISTER, rseq.signature.into()];
            injector.call(libc::SYS_rseq, &args, "rseq").doing(path)?;
        }
        Ok(injector)
    }

    /// Takes from a new process the signal actions that its maker has already, where the first thread of that waits.
    pub(super) fn without_actions(
        &mut self,
        creator: Pid,
        birth: &Birth,
        mut injector: Injector,
    ) -> Result<Injector, Failure> {
        if self.waits(creator, creator) && birth.shares.signal_actions.is_none() {
            let set = self.image(creator)?.actions.iter().map(|action| action.signal);
            let mut batch = Batch::new();
            for signal in set.chain([Signal::SIGCHLD]) {
                signal::restore::action(&mut batch, &[], signal);
            }
            injector.run(&batch).doing(|| layout::process_dir(birth.pid))?;
        }
        Ok(injector)
    }

    /// What the thread alone can do for itself, done before it waits.
    fn before_vfork(&mut self, pid: Pid, tid: Pid) -> Result<(), Failure> {
        let image = self.image(pid)?;
        let path = thread::restore::path(pid, tid);
        let thread = image.threads.get(&tid).ok_or_else(|| Failure::new(Kind::System, path.clone()))?;
        let has_parent = image.process.parent != Pid(0);
        let (own, own_tid) = (self.seen_by(pid, pid)?, self.seen_by(pid, tid)?);
        let mut batch = Batch::new();
        // What is queued by the first thread comes after the actions, some of which would throw it away.
        if tid == pid {
            if is_told(pid, image) {
                signal::restore::action(&mut batch, &image.actions, Signal::SIGCHLD);
            } else {
                signal::restore::quiet_children(&mut batch);
            }
            signal::restore::actions(&mut batch, image.actions.iter().filter(|it| it.signal != Signal::SIGCHLD));
            signal::restore::pending(&mut batch, image.pending.iter(), own, None);
        }
        signal::restore::pending(&mut batch, thread.pending.iter(), own, Some(own_tid));
        thread::restore::registrations(&mut batch, thread);
        self.policies.of_thread(&mut batch, pid, tid);
        thread::restore::identity(&mut batch, &thread.attr.credentials, None);
        let all = self.own_capabilities;
        thread::restore::credentials(&mut batch, &path, &thread.attr, all, &mut self.notes);
        thread::restore::pdeath_signal(&mut batch, &path, &thread.attr, has_parent, &mut self.notes);
        let mut injector = self
            .tasks
            .get_mut(&pid)
            .and_then(|task| task.injected.remove(&tid))
            .ok_or_else(|| Failure::new(Kind::System, path.clone()))?;
        thread_controls::restore::restore(&mut injector, &path, &thread.attr.controls, &mut self.notes)?;
        self.log_in(&mut injector, &path, thread)?;
        injector.run(&batch).doing(|| path.clone())?;
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.injected.insert(tid, injector);
        }
        Ok(())
    }

    /// A thread more in a process, which has an id that nobody will ask for.
    fn stand_in(&mut self, pid: Pid) -> Result<Injector, Failure> {
        let image = &self.copy.image;
        let taken = |id: Pid| {
            self.plan.births.contains_key(&id) || image.processes.values().any(|it| it.threads.contains_key(&id))
        };
        let free: Vec<u32> = (1..=HIGHEST_ID).rev().filter(|&id| !taken(Pid(id))).take(TRIES as usize).collect();
        let path = || layout::process_dir(pid);
        let mut last = None;
        for id in free {
            let set_tid = vec![i32::try_from(id).unwrap_or(0)];
            let spawn = Spawn { flags: super::threads::flags(), set_tid, ..Spawn::default() };
            let leader = self.leader(pid)?;
            match leader.spawn(&spawn, "clone3 a stand-in") {
                Ok(thread) => return Injector::of_child(thread, leader).doing(path),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| Failure::new(Kind::System, "no id is free"), |error| Failure::from_error(&error)))
            .doing(path)
    }

    /// Ends the stand-in of a process's first thread, by then the last that runs anything in it. It unmaps the scratch memory if that
    /// is the process's own.
    pub(super) fn end_stand_in(&mut self, pid: Pid, mut injector: Injector) -> Result<(), Failure> {
        let (image, path) = (self.image(pid)?, || layout::process_dir(pid));
        let mut batch = Batch::new();
        // Its end would write there.
        batch.call(libc::SYS_set_tid_address, &[0u64.into()], "set_tid_address");
        batch.call(libc::SYS_set_robust_list, &[0u64.into(), ROBUST_LIST_SIZE.into()], "set_robust_list");
        injector.run(&batch).doing(path)?;
        let (syscall, thread) = match image.process.shares.memory {
            Some(_) => (injector.syscall_instruction(), injector.release()),
            None => (find_syscall(injector.tid().pid(), image)?, injector.unmap_scratch_and_stop()),
        };
        end_thread(thread.doing(path)?, syscall, Instant::now() + STOP_PATIENCE).doing(path)
    }

    /// Gives a thread that stands in its vfork its final registers.
    pub(super) fn finish_waiting(&mut self, pid: Pid, tid: Pid, tracee: &Tracee<Stopped>) -> Result<(), Failure> {
        let path = || layout::thread_file(pid, tid, "thread.frame");
        let missing = || Failure::new(Kind::System, path());
        let thread = self.image(pid)?.threads.get(&tid).ok_or_else(missing)?;
        tracee.set_xstate(&registers::restore::xstate(&thread.fpu)?).doing(path)?;
        let [d0, d1, d2, d3, d6, d7] = thread.fpu.debug.map(|register| register.0);
        if d7 != 0 {
            tracee.set_debug_registers(&[d0, d1, d2, d3, 0, 0, d6, d7]).doing(path)?;
        }
        tracee.set_regs(&registers::restore::user_regs(&thread.frame.registers, &thread.tls)).doing(path)?;
        tracee.set_sigmask(thread.mask.blocked.0).doing(path)?;
        let attr = thread::restore::path(pid, tid);
        thread::restore::scheduling(tracee.tid(), &attr, &thread.attr, self.cpu.all(), &mut self.notes)?;
        thread_controls::restore::dispatch(tracee, &attr, &thread.attr.controls)
    }
}

/// Whether a SIGCHLD is queued for a process, or for its first thread. Then its action is set before that waits: set later, one that ignores the
/// signal would throw it away, and only the first thread may queue it. What children send in between is no second one.
pub(super) fn is_told(pid: Pid, image: &ProcessImage) -> bool {
    let own = image.threads.get(&pid).map(|thread| &thread.pending);
    image.pending.iter().chain(own.into_iter().flatten()).any(|pending| pending.signal == Signal::SIGCHLD)
}

/// Where a process's own code has such an instruction: its vDSO, if nothing else.
fn find_syscall(process: nix::unistd::Pid, image: &ProcessImage) -> Result<RemoteAddress, Failure> {
    const PART: u64 = 1 << 20;
    let mut bytes = Vec::new();
    for segment in image.segments.iter().rev().filter(|segment| segment.protection.contains(Protection::PROT_EXEC)) {
        let mut start = segment.start.0;
        while start < segment.end.0 {
            let length = (segment.end.0 - start).min(PART);
            bytes.resize(usize::try_from(length).unwrap_or(0), 0);
            let read = crfs_sys::memory::read(process, start, &mut bytes);
            if let (Ok(_), Some(at)) = (read, bytes.windows(2).position(|window| window == SYSCALL)) {
                return Ok(RemoteAddress(start + at as u64));
            }
            start += length;
        }
    }
    Err(Failure::new(Kind::Incompatible, "no code of the process makes system calls"))
}

//! The threads of a process: made, filtered, and given what each has for itself.

use super::builder::Builder;
use crate::failure::{Doing, Failure};
use crate::plan::ThreadStep;
use crate::resource::{login_uid, registers, seccomp, thread, thread_controls, zombie};
use crfs_tracee::{Batch, InjectError, Injector, Spawn};
use image_format::{Pid, ThreadImage, layout};

/// What makes a thread of a process (clone(2)); its thread pointer and tid address are set by calls and registers of its own.
const THREAD: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM;

/// The flags of clone3(2) that make a thread.
pub(super) fn flags() -> u64 {
    u64::from(THREAD.cast_unsigned())
}

/// As many calls, with their data, as the scratch memory holds at once.
const CLONED_AT_ONCE: usize = 512;

impl<'a> Builder<'a> {
    pub(super) fn threads(&mut self, pid: Pid) -> Result<(), Failure> {
        let plan = self.plan;
        let mut steps = plan.threads.get(&pid).map_or(&[][..], Vec::as_slice);
        while let Some((step, rest)) = steps.split_first() {
            match *step {
                ThreadStep::Clone { by, .. } => {
                    let by_it = steps.iter().map_while(|step| match *step {
                        ThreadStep::Clone { by: other, thread } if other == by => Some(thread),
                        _ => None,
                    });
                    let threads: Vec<Pid> = by_it.take(CLONED_AT_ONCE).collect();
                    self.clone_threads(pid, by, &threads)?;
                    steps = &steps[threads.len()..];
                }
                ThreadStep::Filter { thread, filter } => {
                    let mut batch = Batch::new();
                    seccomp::restore::install(&mut batch, seccomp::restore::find(&self.copy.image.seccomp, filter)?);
                    self.thread(pid, thread)?.run(&batch).doing(|| thread::restore::path(pid, thread))?;
                    steps = rest;
                }
            }
        }
        let threads = self.tasks.get(&pid).map(|task| &task.injected);
        self.cgroups.place_threads(|tid| Some(threads?.get(&tid)?.tid().raw()))
    }

    /// Has a process take its ids and join its namespaces, that of users last. It has one thread yet.
    pub(super) fn enter(&mut self, pid: Pid) -> Result<(), Failure> {
        // Of whoever is in a user namespace only CAP_SYS_RESOURCE sets limits, which not every root has.
        self.limits(pid)?;
        self.each_thread(pid, |builder, tid, injector, thread| {
            let (path, link) = (thread::restore::path(pid, tid), builder.plan.link_fd);
            builder.log_in(injector, &path, thread)?;
            let mut batch = Batch::new();
            builder.namespaces.join(&mut batch, pid, link);
            let user = builder.user_namespaces.of(pid).map(|open| (open, link));
            thread::restore::identity(&mut batch, &thread.attr.credentials, user);
            injector.run(&batch).map(drop).doing(|| path)
        })
    }

    pub(super) fn log_in(&mut self, injector: &mut Injector, path: &str, thread: &ThreadImage) -> Result<(), Failure> {
        let wanted = thread.attr.login_uid;
        // It has that of the thread that cloned it.
        if login_uid::current(injector.tid()) == wanted {
            return Ok(());
        }
        login_uid::restore(injector, self.plan.link_fd, path, wanted, &mut self.notes)
    }

    fn clone_threads(&mut self, pid: Pid, by: Pid, tids: &[Pid]) -> Result<(), Failure> {
        if self.entering.contains(&pid) {
            return tids.iter().try_for_each(|&tid| self.clone_inside(pid, by, tid));
        }
        if self.entering.contains(&pid) {
            return tids.iter().try_for_each(|&tid| self.clone_inside(pid, by, tid));
        }
        let spawn = |&tid: &Pid| {
            let set_tid = self.pid_namespaces.ids(tid)?;
            let spawn = Spawn { flags: u64::from(THREAD.cast_unsigned()), set_tid, ..Spawn::default() };
            Ok((spawn, format!("clone3 thread {tid}").into()))
        };
        let spawns: Vec<_> = tids.iter().map(spawn).collect::<Result<_, Failure>>()?;
        let creator = self.thread(pid, by)?;
        let threads = creator.spawn_all(&spawns).doing(|| layout::process_dir(pid))?;
        let injectors = tids.iter().zip(threads).map(|(&tid, thread)| Ok((tid, Injector::of_child(thread, creator)?)));
        let injectors: Vec<_> = injectors.collect::<Result<_, InjectError>>().doing(|| layout::process_dir(pid))?;
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.injected.extend(injectors);
        }
        Ok(())
    }

    /// Makes a thread in a process that may not ask for its ids any more.
    fn clone_inside(&mut self, pid: Pid, by: Pid, tid: Pid) -> Result<(), Failure> {
        let path = || layout::thread_file(pid, tid, "attr");
        self.pid_namespaces.offer(tid).doing(path)?;
        let creator = self.thread(pid, by)?;
        let spawn = Spawn { flags: u64::from(THREAD.cast_unsigned()), ..Spawn::default() };
        let thread = creator.spawn(&spawn, format!("clone3 thread {tid}")).doing(path)?;
        let injector = Injector::of_child(thread, creator).doing(path)?;
        self.pid_namespaces.expect(tid, injector.tid()).doing(path)?;
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.injected.insert(tid, injector);
        }
        Ok(())
    }

    /// Runs `part` for every thread of the image that does not wait in vfork; a first one that is to end is none.
    pub(super) fn each_thread(
        &mut self,
        pid: Pid,
        mut part: impl FnMut(&mut Self, Pid, &mut Injector, &'a ThreadImage) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let image = self.image(pid)?;
        let Some(mut injected) = self.tasks.get_mut(&pid).map(|task| std::mem::take(&mut task.injected)) else {
            return Ok(());
        };
        let in_image =
            injected.iter_mut().filter_map(|(&tid, injector)| Some((tid, injector, image.threads.get(&tid)?)));
        let result = in_image
            .filter(|(tid, ..)| !self.waits(pid, *tid))
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|(tid, injector, thread)| part(self, tid, injector, thread));
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.injected = injected;
        }
        result
    }

    pub(super) fn thread_state(&mut self, pid: Pid) -> Result<(), Failure> {
        let has_entered = self.entering.contains(&pid);
        self.each_thread(pid, |builder, tid, injector, thread| {
            let path = thread::restore::path(pid, tid);
            thread_controls::restore::restore(injector, &path, &thread.attr.controls, &mut builder.notes)?;
            if !has_entered {
                builder.log_in(injector, &path, thread)?;
            }
            let tracee = injector.tracee().doing(|| path.clone())?;
            tracee.set_xstate(&registers::restore::xstate(&thread.fpu)?).doing(|| path.clone())?;
            let [d0, d1, d2, d3, d6, d7] = thread.fpu.debug.map(|register| register.0);
            if d7 != 0 {
                tracee.set_debug_registers(&[d0, d1, d2, d3, 0, 0, d6, d7]).doing(|| path.clone())?;
            }
            Ok(())
        })
    }

    /// The last calls that a thread makes for itself, as one batch.
    pub(super) fn credentials(&mut self, pid: Pid) -> Result<(), Failure> {
        let has_parent = self.image(pid)?.process.parent != Pid(0);
        self.each_thread(pid, |builder, tid, injector, thread| {
            let path = thread::restore::path(pid, tid);
            let mut batch = Batch::new();
            thread::restore::registrations(&mut batch, thread);
            builder.policies.of_thread(&mut batch, pid, tid);
            if let Some(own) = &thread.attr.directories {
                builder.directories.leave(&mut batch, pid, own, builder.plan.link_fd)?;
            }
            let user = builder.user_namespaces.of(pid).map(|open| (open, builder.plan.link_fd));
            let own = if user.is_some() { thread::restore::all_capabilities()? } else { builder.own_capabilities };
            if !builder.entering.contains(&pid) {
                thread::restore::identity(&mut batch, &thread.attr.credentials, user);
            }
            thread::restore::credentials(&mut batch, &path, &thread.attr, own, &mut builder.notes);
            thread::restore::pdeath_signal(&mut batch, &path, &thread.attr, has_parent, &mut builder.notes);
            if thread.fds.is_some() {
                batch.call(libc::SYS_close, &[builder.plan.link_fd.into()], "close the link");
            }
            seccomp::restore::strict(&mut batch, thread.attr.seccomp);
            injector.run(&batch).map(drop).doing(|| path)
        })?;
        let mut batch = Batch::new();
        if let Some(ended) = &self.image(pid)?.process.first_thread_ended {
            zombie::restore::attributes_of_thread(&mut batch, ended);
        }
        thread::restore::dumpable(&mut batch, self.image(pid)?.attr.dumpable);
        if self.image(pid)?.process.shares.descriptors.is_none() {
            // Nothing pulls descriptors any more.
            batch.call(libc::SYS_close, &[self.plan.link_fd.into()], "close the link");
        }
        self.inject(pid, &batch)
    }
}

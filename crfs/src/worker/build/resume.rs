//! The end of the build: every task gets its registers, and nothing of ours is left in it.

use super::builder::{Builder, PR_SET_PDEATHSIG};
use crate::failure::{Doing, Failure, Kind};
use crate::plan::OUTSIDE;
use crate::resource::memory::restore as memory;
use crate::resource::{registers, thread, thread_controls};
use crfs_tracee::{Batch, stub};
use image_format::{Pid, layout};

impl Builder<'_> {
    /// The last that is done to a process: interrupted calls, the scratch, masks and registers. The leader comes last and unmaps the
    /// scratch, which is one for all its threads; one that has to end does so before the others, the last of which takes its place.
    pub(super) fn resume(&mut self, pid: Pid) -> Result<(), Failure> {
        if pid == OUTSIDE {
            return self.become_init();
        }
        let image = self.image(pid)?;
        let taken = self
            .tasks
            .get_mut(&pid)
            .map(|task| (std::mem::take(&mut task.injected), std::mem::take(&mut task.waiting)));
        let Some((mut injected, waiting)) = taken else { return Ok(()) };
        let stand_in = waiting.contains_key(&pid).then(|| injected.remove(&pid)).flatten();
        let mut last = injected.remove(&pid).map(|leader| (pid, leader));
        if let Some(ended) = &image.process.first_thread_ended
            && let Some((_, leader)) = last.take()
        {
            let code = u8::try_from(ended.status >> 8).unwrap_or(0);
            leader.exit_first_thread(code).doing(|| layout::process_file(pid, "process"))?;
            last = injected.pop_last();
        }
        let last_tid = last.as_ref().filter(|_| stand_in.is_none()).map(|(tid, _)| *tid);
        let mut finished = Vec::with_capacity(image.threads.len());
        for (tid, mut injector) in injected.into_iter().chain(last) {
            let path = || layout::thread_file(pid, tid, "thread.frame");
            let thread = image.threads.get(&tid).ok_or_else(|| Failure::new(Kind::System, path()))?;
            let rax = registers::restore::reenter(&mut injector, thread).doing(path)?;
            let last = Some(tid) == last_tid && image.process.shares.memory.is_none();
            let tracee = if last { injector.unmap_scratch_and_stop() } else { injector.release() }.doing(path)?;
            let mut regs = registers::restore::user_regs(&thread.frame.registers, &thread.tls);
            regs.rax = rax;
            let resume = thread.frame.syscall.as_ref().map(|call| &call.resume);
            if let Some(place) = registers::shorten::shorten_recorded(&mut regs, resume) {
                crfs_sys::memory::write(tracee.tid().pid(), place.address, &place.bytes).doing(path)?;
            }
            tracee.set_regs(&regs).doing(path)?;
            tracee.set_sigmask(thread.mask.blocked.0).doing(path)?;
            // Nothing of ours runs in it any more, so it may leave this CPU, or wait for others.
            let attr = thread::restore::path(pid, tid);
            thread::restore::scheduling(tracee.tid(), &attr, &thread.attr, self.cpu.all(), &mut self.notes)?;
            thread_controls::restore::dispatch(&tracee, &attr, &thread.attr.controls)?;
            finished.push((tid, tracee));
        }
        stand_in.map_or(Ok(()), |injector| self.end_stand_in(pid, injector))?;
        for (tid, tracee) in waiting {
            self.finish_waiting(pid, tid, &tracee)?;
            finished.push((tid, tracee));
        }
        if let Some((_, leader)) = finished.last().filter(|_| image.process.shares.memory.is_none()) {
            memory::verify(leader.tid(), image)?;
        }
        if let Some(task) = self.tasks.get_mut(&pid) {
            task.finished = finished;
        }
        Ok(())
    }

    /// The stub begins its life as pid 1: nothing open, nobody whose death is its own, and waiting for children.
    fn become_init(&mut self) -> Result<(), Failure> {
        let doing = || "the stub init".to_owned();
        let mut batch = Batch::new();
        let root = batch.data(b"/\0");
        batch.call(libc::SYS_chdir, &[root.into()], "chdir");
        batch.call(libc::SYS_prctl, &[PR_SET_PDEATHSIG.into(), 0u64.into()], "prctl(PR_SET_PDEATHSIG)");
        batch.call(libc::SYS_close, &[self.plan.link_fd.into()], "close the link");
        self.inject(OUTSIDE, &batch)?;
        let injector = self.tasks.get_mut(&OUTSIDE).and_then(|task| task.injected.remove(&OUTSIDE));
        let injector = injector.ok_or_else(|| Failure::new(Kind::System, doing()))?;
        let tracee = injector.unmap_scratch_and_stop().doing(doing)?;
        crfs_sys::sched::set_affinity(tracee.tid().pid(), self.cpu.all()).doing(doing)?;
        let mut regs = tracee.regs().doing(doing)?;
        regs.rip = stub::REAP.0;
        // In no call, so that none is started again.
        regs.orig_rax = u64::MAX;
        tracee.set_regs(&regs).doing(doing)?;
        if let Some(task) = self.tasks.get_mut(&OUTSIDE) {
            task.finished = vec![(OUTSIDE, tracee)];
        }
        Ok(())
    }
}

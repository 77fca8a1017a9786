//! The address spaces of processes: mapped, and filled.

use super::builder::Builder;
use crate::failure::{Doing, Failure, Kind};
use crate::plan::{MemoryPlan, SCRATCH_SIZE, Step};
use crate::resource::io_uring;
use crate::resource::memory::aside;
use crate::resource::memory::fill::{self, Unfilled};
use crate::resource::memory::restore as memory;
use crfs_tracee::Batch;
use image_format::{Pid, layout};

impl<'a> Builder<'a> {
    pub(super) fn memory(&mut self, pid: Pid) -> Result<(), Failure> {
        let image = self.image(pid)?;
        let planned = self.memory_plan(pid)?;
        let mut batch = Batch::new();
        if planned.inherited_from.is_none() {
            memory::empty(&mut batch, self.scratch());
        }
        let vdso_size = self.copy.image.manifest.kernel.vdso_size;
        memory::map(&mut batch, image, planned, self.plan.link_fd, &self.backings, &self.ipc, vdso_size)?;
        self.policies.of_mappings(&mut batch, image, planned);
        self.inject(pid, &batch)?;
        self.rings(pid)
    }

    /// Maps the rings of io_uring, when all else is mapped.
    fn rings(&mut self, pid: Pid) -> Result<(), Failure> {
        let places = self.backings.rings(self.image(pid)?, self.memory_plan(pid)?)?;
        if places.is_empty() {
            return Ok(());
        }
        let link = self.plan.link_fd;
        let leader = self.leader(pid)?;
        io_uring::map::map(pid, leader.tid(), &places, link, |batch| {
            leader.run(batch).doing(|| layout::process_dir(pid))
        })?;
        let mut batch = Batch::new();
        places.iter().for_each(|place| memory::advise_early(&mut batch, place.segment));
        self.inject(pid, &batch)
    }

    /// Rings of io_uring that belong to threads, when these and their descriptors are there.
    pub(super) fn enable_rings(&mut self) -> Result<(), Failure> {
        let (copy, from, link) = (self.copy, self.from, self.link());
        let open = std::mem::take(&mut self.opened.files);
        let done = io_uring::issuer::restore_all(&copy.image, &open, from, link, |(process, thread), batch| {
            self.thread(process, thread)?.run(batch).doing(|| layout::thread_file(process, thread, "attr"))
        });
        self.opened.files = open;
        done
    }

    fn scratch(&self) -> (u64, u64) {
        (self.plan.scratch.0, self.plan.scratch.0 + SCRATCH_SIZE)
    }

    pub(super) fn fill(&mut self, steps: &[Step]) -> Result<(), Failure> {
        let huge_pages = aside::huge_pages();
        let mut unfilled = Vec::new();
        for step in steps {
            let (image, plan) = (self.image(step.process)?, self.memory_plan(step.process)?);
            unfilled.push(Unfilled::new(self.leader(step.process)?, image, plan, huge_pages)?);
        }
        fill::fill(&unfilled, &mut self.pages, self.cpu.all())?;
        let mut left = Vec::new();
        for (step, unfilled) in steps.iter().zip(unfilled) {
            left.extend(unfilled.finish(self.leader(step.process)?)?);
        }
        fill::fill(&left, &mut self.pages, self.cpu.all())?;
        for step in steps {
            let mut batch = Batch::new();
            memory::protect_filled(&mut batch, self.image(step.process)?, self.memory_plan(step.process)?);
            self.inject(step.process, &batch)?;
        }
        Ok(())
    }

    fn memory_plan(&self, pid: Pid) -> Result<&'a MemoryPlan, Failure> {
        let missing = || Failure::new(Kind::System, format!("process {pid}: no memory is planned"));
        self.plan.memory.get(&pid).ok_or_else(missing)
    }
}

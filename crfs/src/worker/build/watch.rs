//! What epoll instances watch.

use super::builder::Builder;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::{descriptor, epoll};
use crfs_tracee::Batch;
use image_format::{Pid, layout};

impl Builder<'_> {
    /// Adds what epoll instances watch. The targets of all of them are ready by now for whatever they were ready for at the freeze.
    pub(super) fn watch(&mut self) -> Result<(), Failure> {
        let registrations = std::mem::take(&mut self.registrations.in_place);
        for of_one in registrations.chunk_by(|one, next| one.owner == next.owner) {
            let (process, owner) = (of_one[0].process, of_one[0].owner);
            let mut batch = Batch::new();
            let add = |one: &epoll::Registration| (one.watch, epoll::register(&mut batch, one.epfd.into(), &one.watch));
            let added: Vec<_> = of_one.iter().map(add).collect();
            self.add(process, owner, &batch, &added)?;
        }
        Ok(())
    }

    /// Adds what is to be remembered under numbers that are closed by now or name something else, before a table is filled.
    pub(super) fn watch_early(&mut self, process: Pid, owner: Pid) -> Result<(), Failure> {
        let Some(early) = self.registrations.early.remove(&owner) else { return Ok(()) };
        let link = self.link();
        let mut batch = Batch::new();
        descriptor::inject::close_all(&mut batch, link);
        let add = |one: &epoll::EarlyRegistration| {
            Ok((one.watch, epoll::register_early(&mut batch, one, &self.opened.files, link)?))
        };
        let added = early.iter().map(add).collect::<Result<Vec<_>, Failure>>()?;
        self.add(process, owner, &batch, &added)
    }

    /// Runs the calls, and looks whether each target that is switched off had its one event.
    fn add(
        &mut self,
        process: Pid,
        owner: Pid,
        batch: &Batch,
        added: &[(epoll::Watch, Option<usize>)],
    ) -> Result<(), Failure> {
        let table = || layout::table_file(process, owner);
        let answers = self.thread(process, owner)?.run(batch).doing(table)?;
        for (watch, taken) in added {
            if taken.is_some_and(|at| answers.get(at) != Some(&1)) {
                let reason = format!(
                    "{}: descriptor {} is switched off in an epoll instance (EPOLLONESHOT) and not ready for anything here",
                    table(),
                    watch.fd
                );
                return Err(Failure::new(Kind::Incompatible, reason));
            }
        }
        Ok(())
    }
}

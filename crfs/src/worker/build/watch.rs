//! What epoll instances watch, when all descriptors are in place.

use super::builder::Builder;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::epoll;
use crfs_tracee::Batch;
use image_format::layout;

impl Builder<'_> {
    /// Adds every target to its instance, through the descriptors of whoever has both.
    pub(super) fn watch(&mut self) -> Result<(), Failure> {
        let registrations = std::mem::take(&mut self.registrations);
        for of_one in registrations.chunk_by(|one, next| one.owner == next.owner) {
            let (process, owner) = (of_one[0].process, of_one[0].owner);
            let table = || layout::table_file(process, owner);
            let mut batch = Batch::new();
            let taken: Vec<Option<usize>> = of_one.iter().map(|one| epoll::register(&mut batch, one)).collect();
            let answers = self.thread(process, owner)?.run(&batch).doing(table)?;
            for (registration, at) in of_one.iter().zip(taken) {
                if at.is_some_and(|at| answers.get(at) != Some(&1)) {
                    let reason = format!(
                        "{}: descriptor {} is switched off in an epoll instance (EPOLLONESHOT) and not ready for anything here",
                        table(),
                        registration.fd
                    );
                    return Err(Failure::new(Kind::Incompatible, reason));
                }
            }
        }
        Ok(())
    }
}

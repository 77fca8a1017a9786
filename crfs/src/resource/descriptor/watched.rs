//! What epoll instances watch, found among all that is open.

use super::capture::{Draft, Pass, id, object};
use super::gather::Description;
use super::refused::Refusal;
use super::streams;
use crate::failure::Failure;
use crate::resource::epoll;
use image_format::Hex;
use image_format::files::{Epoll, EpollTarget, FileKind};
use nix::errno::Errno;

impl Pass<'_> {
    /// Finds what each epoll instance watches, among all that was found.
    pub(super) fn epolls(&mut self) -> Result<(), Failure> {
        for index in 0..self.drafts.len() {
            let Draft::Epoll(targets) = &self.drafts[index] else { continue };
            let instance = &self.table.descriptions[index];
            let mut records = Vec::new();
            let mut refusals = Vec::new();
            for target in targets {
                match self.target(target, instance)? {
                    Ok(record) => records.extend(record),
                    Err(refusal) => refusals.push(refusal),
                }
            }
            records.sort_by_key(|record: &EpollTarget| (record.fd, record.file, record.events, record.data));
            let refused = !refusals.is_empty();
            for refusal in refusals {
                self.refuse(instance.seen.holder, refusal);
            }
            self.drafts[index] =
                if refused { Draft::Refused } else { Draft::Done(FileKind::Epoll(Epoll { targets: records })) };
        }
        Ok(())
    }

    /// The record of a target. None when its description is refused itself, or when it vanished from running tasks.
    fn target(
        &self,
        target: &epoll::Target,
        instance: &Description,
    ) -> Result<Result<Option<EpollTarget>, Refusal>, Failure> {
        let index = match self.watched(target, instance) {
            Ok(Some(index)) => index,
            Ok(None) => return Ok(Err(target.refuse())),
            Err(errno) if self.kernel.is_some() => {
                let doing = format!("{}: comparing the targets of an epoll instance", object(instance.seen.holder));
                return Err(Failure::from_error(&errno).within(doing));
            }
            // Tasks that run have closed it, or opened it after all was looked at.
            Err(_) => return Ok(Ok(None)),
        };
        let fd = target.fd.unsigned_abs();
        let record = |events| EpollTarget { fd, file: id(index), events: Hex(events), data: Hex(target.data) };
        let seen = &self.table.descriptions[index].seen;
        // Of running tasks it is not asked: it may be otherwise at the freeze.
        let is_ready = || if self.kernel.is_some() { epoll::is_ready(seen) } else { Ok(true) };
        Ok(match &self.drafts[index] {
            Draft::Refused => Ok(None),
            Draft::Done(_) if self.streams.contains(&index) => Err(streams::watched(target.fd)),
            Draft::Done(kind) => epoll::check_target(target, kind, is_ready).map(|events| Some(record(events))),
            // Another instance, whose own turn is yet to come; pipes had theirs.
            Draft::Epoll(_) | Draft::Pipe { .. } | Draft::Queue | Draft::Tty | Draft::Socket => {
                let kind = FileKind::Epoll(Epoll { targets: Vec::new() });
                epoll::check_target(target, &kind, is_ready).map(|events| Some(record(events)))
            }
        })
    }

    /// The description that a target stands for: its number may name another by now, or nothing. None when nobody has it; `EBADF` when it
    /// was not among what was looked at.
    fn watched(&self, target: &epoll::Target, instance: &Description) -> nix::Result<Option<usize>> {
        for &holder in &instance.holders {
            if target.is_named_by(holder)? {
                return self.table.description(holder.host, target.fd).map(Some).ok_or(Errno::EBADF);
            }
        }
        let alike = |known: &Description| known.seen.inode().1 == target.inode;
        for (index, known) in self.table.descriptions.iter().enumerate().filter(|(_, known)| alike(known)) {
            if target.is(known.seen.holder, instance.seen.holder)? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }
}

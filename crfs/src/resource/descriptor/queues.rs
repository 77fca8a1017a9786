//! POSIX message queues: those that are open, and those that only have a name.

use super::capture::{Draft, Pass, Whose, id};
use super::gather::Description;
use super::holders::Kernel;
use crate::failure::{Doing, Failure};
use crate::resource::mqueue::{self, Asked, Namespace};
use image_format::FileId;
use image_format::files::{FileKind, OpenQueue};
use image_format::layout::POSIX_MQ;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

impl Pass<'_> {
    /// Puts the descriptions of each queue together: first the queues with names, then others in the order in which they were met.
    pub(super) fn queues(&mut self, whose: Whose<'_>) -> Result<(), Failure> {
        let open: Vec<usize> =
            (0..self.drafts.len()).filter(|&index| matches!(self.drafts[index], Draft::Queue)).collect();
        let Some(kernel) = self.kernel else {
            // Of those whose processes run, nothing stands in the way that is seen without a look at them.
            open.into_iter().for_each(|index| self.drafts[index] = Draft::Refused);
            return Ok(());
        };
        let mut rest = open;
        for (number, &process) in (0..).zip([whose.init].iter().chain(whose.ipc)) {
            if let Some(namespace) = Namespace::look(process)? {
                self.queues_of((number, namespace), &mut rest, whose, kernel)?;
            }
        }
        for index in rest {
            let seen = &self.table.descriptions[index].seen;
            self.drafts[index] = Draft::Refused;
            self.refuse(seen.holder, mqueue::another_namespace(&seen.name()));
        }
        Ok(())
    }

    /// Those of one namespace, whose descriptions are taken out of `open`.
    fn queues_of(
        &mut self,
        (of, Namespace { device, named, changed }): (u32, Namespace),
        open: &mut Vec<usize>,
        whose: Whose<'_>,
        kernel: &Kernel<'_>,
    ) -> Result<(), Failure> {
        let mut descriptions: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        let mut order = Vec::new();
        open.retain(|&index| {
            let (on, inode) = self.table.descriptions[index].seen.inode();
            if on == device {
                let known = descriptions.entry(inode).or_default();
                if known.is_empty() {
                    order.push(inode);
                }
                known.push(index);
            }
            on != device
        });
        // Of others they are told with who is there.
        for (name, value, usual) in changed.into_iter().filter(|_| of == 0) {
            self.findings.block(
                POSIX_MQ,
                format!("the limit fs.mqueue.{name} of the ipc namespace is {value} in the place of {usual}, which is not carried"),
                "Set it back (sysctl, inside the container)",
            );
        }
        let mut queues = Vec::new();
        for (name, queue) in named {
            let inode = queue.metadata().doing(|| format!("POSIX message queue /{name}: looking at it"))?.ino();
            queues.push((Some(name), queue, descriptions.remove(&inode).unwrap_or_default()));
        }
        for inode in order {
            let Some(unlinked) = descriptions.remove(&inode) else { continue };
            let seen = &self.table.descriptions[unlinked[0]].seen;
            let duplicate = seen.duplicate().doing(|| format!("{}: duplicating it", seen.name()))?;
            queues.push((None, File::from(duplicate), unlinked));
        }
        for (name, queue, descriptions) in queues {
            let number = u32::try_from(self.out.queues.len() + 1).unwrap_or(u32::MAX);
            let socket = |identity: u64| self.socket(|fd| kernel.notify_socket(fd) == Some(identity));
            let asked = Asked { number, namespace: of, name, processes: whose.processes, socket: &socket };
            match mqueue::capture(&queue, asked, kernel)? {
                Ok((record, data)) => {
                    for index in descriptions {
                        self.drafts[index] = Draft::Done(FileKind::MessageQueue(OpenQueue { queue: number }));
                    }
                    self.out.queues.push(record);
                    self.out.queued.insert(number, data);
                }
                Err(refusal) => {
                    descriptions.iter().for_each(|&index| self.drafts[index] = Draft::Refused);
                    self.findings.block(POSIX_MQ, refusal.reason, refusal.remedy);
                }
            }
        }
        Ok(())
    }

    /// The socket of which a descriptor in this process is the one that is looked for.
    fn socket(&self, is_it: impl Fn(i32) -> bool) -> Option<FileId> {
        let found = self.table.descriptions.iter().position(|Description { seen, .. }| {
            let is_socket = seen.file_type() == libc::S_IFSOCK && !seen.is_path();
            is_socket && seen.kept().is_ok_and(|socket| is_it(socket.as_raw_fd()))
        });
        found.map(id)
    }
}

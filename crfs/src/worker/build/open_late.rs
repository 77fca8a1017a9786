//! What is opened only when all processes are there, in one step: sockets, which are connected to each other across processes,
//! files that the kernel makes up, pidfds and namespaces; and what inotify instances and fanotify groups watch, when nothing is opened any more.

use super::builder::Builder;
use crate::failure::{Doing, Failure};
use crate::resource::descriptor;
use crate::resource::fanotify;
use crate::resource::inotify;
use crate::resource::namespace;
use crate::resource::pidfd;
use crate::resource::pseudo_file;
use crate::resource::socket::{self, Processes};
use crfs_tracee::Batch;
use image_format::files::{FileKind, NamespaceType};
use image_format::{Pid, layout};

impl Builder<'_> {
    /// Makes every socket and pidfd, and opens every namespace and file of /proc; `first` is a process that lives, whose namespaces are the container's.
    pub(super) fn open_late(&mut self, first: Pid) -> Result<(), Failure> {
        let mut open = std::mem::take(&mut self.opened.files);
        let (image, from) = (&self.copy.image, self.from);
        let roots = self.roots.clone();
        let host = Builder::host(self, first)?.raw();
        // Messages may carry them.
        for (&id, file) in &self.copy.image.files {
            let opened = match &file.kind {
                FileKind::Pidfd(record) => {
                    let named =
                        record.pid.map(|pid| Builder::host(self, pid).map(crfs_sys::HostPid::raw)).transpose()?;
                    pidfd::restore(id, file, record, named, host)?
                }
                FileKind::Namespace(record) => {
                    let apart = match (record.kind, record.process) {
                        // Who is in one of these types has joined it.
                        (kind @ (NamespaceType::Mnt | NamespaceType::Time), Some(process)) => {
                            Some(format!("/proc/{}/ns/{}", Builder::host(self, process)?.raw(), kind.name()))
                        }
                        (NamespaceType::Pid, Some(process)) => self.pid_namespaces.path(process),
                        (NamespaceType::User, Some(process)) => self.user_namespaces.path(process),
                        (kind, process) => process.and_then(|process| self.namespaces.path(kind, process)),
                    };
                    let path = apart.unwrap_or_else(|| format!("/proc/{host}/ns/{}", record.kind.name()));
                    namespace::restore(id, file, &path)?
                }
                _ => continue,
            };
            open.insert(id, opened);
        }
        pseudo_file::take_numbers(image, self)?;
        let opened = descriptor::open_pseudo_files(image, &roots, &mut open);
        let opened = opened.and_then(|()| pseudo_file::restore_inside(image, first, self, &mut open));
        let made = opened.and_then(|()| {
            let networks = self.namespaces.of_type(NamespaceType::Net)?;
            socket::restore_all(image, from, roots.own(), host, &networks, self, &mut open)
        });
        let watched = made.and_then(|()| inotify::watch_all(image, &roots, &open, &mut self.notes));
        let watched = watched.and_then(|()| fanotify::mark_all(image, &roots, &open, &mut self.notes));
        self.opened.files = open;
        self.notes.extend(socket::notes(image));
        watched
    }
}

impl Processes for Builder<'_> {
    fn run(&mut self, process: Pid, batch: &Batch) -> Result<Vec<i64>, Failure> {
        self.leader(process)?.run(batch).doing(|| layout::process_dir(process))
    }

    fn host(&mut self, process: Pid) -> Option<i32> {
        let is_live = self.copy.image.processes.contains_key(&process);
        is_live.then(|| Builder::host(self, process).ok()).flatten().map(crfs_sys::HostPid::raw)
    }

    fn link(&self) -> u32 {
        Builder::link(self)
    }
}

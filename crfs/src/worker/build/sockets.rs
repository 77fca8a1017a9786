//! The sockets of all processes, in one step: they are connected to each other across processes.

use super::builder::Builder;
use crate::failure::{Doing, Failure};
use crate::resource::socket::{self, Processes};
use crfs_tracee::Batch;
use image_format::{Pid, layout};
use std::os::fd::AsFd;

impl Builder<'_> {
    /// Makes every socket; `first` is a process that lives, whose network and mounts are the container's.
    pub(super) fn sockets(&mut self, first: Pid) -> Result<(), Failure> {
        let mut open = std::mem::take(&mut self.opened.files);
        let (image, staging) = (&self.copy.image, self.staging.clone());
        let root = self.root.try_clone().doing(|| "duplicating the container's root")?;
        let host = Builder::host(self, first)?.raw();
        let made = socket::restore_all(image, &staging, root.as_fd(), host, self, &mut open);
        self.opened.files = open;
        made
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

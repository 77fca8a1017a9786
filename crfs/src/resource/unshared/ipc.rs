//! Ipc namespaces apart while a container is built: filled, and joined by processes as they are born.

use super::Made;
use super::restore::enter;
use crate::copy::Contents;
use crate::failure::{Doing, Failure};
use crate::resource::container::inside::{IPC, inside_of};
use crate::resource::{mqueue, sysv};
use crfs_sys::HostPid;
use crfs_sys::sysv::Attachment;
use crfs_tracee::Batch;
use image_format::files::NamespaceType;
use image_format::layout::NAMESPACES;
use image_format::{FileId, Image, Pid};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

/// The ipc namespaces of a container, by their numbers; none where all processes are in the container's own.
#[derive(Debug)]
pub struct IpcNamespaces<'a> {
    image: &'a Image,
    open: Vec<File>,
}

impl<'a> IpcNamespaces<'a> {
    /// Opens them: the container's own, which the first process is in, and those that were made.
    ///
    /// # Errors
    /// When that process is gone.
    pub fn open(image: &'a Image, made: &Made, first: HostPid) -> Result<Self, Failure> {
        let mut open = made.of_type(NamespaceType::Ipc)?;
        if !open.is_empty() {
            let path = format!("/proc/{}/ns/ipc", first.raw());
            open.insert(0, File::open(&path).doing(|| format!("{path}: opening"))?);
        }
        Ok(IpcNamespaces { image, open })
    }

    /// Makes the objects of those apart, as [`sysv::restore::make`] does in the container's own.
    ///
    /// The caller must have one thread.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn fill(&self, staging: &Path, contents: &Contents<'_>) -> Result<Vec<Attachment>, Failure> {
        let mut attached = Vec::new();
        for ((number, objects), open) in self.image.ipc_namespaces().zip(&self.open).skip(1) {
            let filled = inside_of(open, IPC, || sysv::restore::make_here((number, objects), staging, contents));
            attached.extend(filled.map_err(|failure| failure.within(NAMESPACES))?);
        }
        Ok(attached)
    }

    /// Makes the message queues of those apart, as [`mqueue::restore::make`] does in the container's own.
    ///
    /// The caller must have one thread.
    ///
    /// # Errors
    /// When the system refuses one.
    pub fn queues(&self, staging: &Path) -> Result<BTreeMap<FileId, OwnedFd>, Failure> {
        let mut opened = BTreeMap::new();
        for (number, open) in (0..).zip(&self.open).skip(1) {
            opened.extend(inside_of(open, IPC, || mqueue::restore::make_here(self.image, number, staging))?);
        }
        Ok(opened)
    }

    /// Whether processes join any.
    #[must_use]
    pub fn is_any(&self) -> bool {
        !self.open.is_empty()
    }

    /// The calls by which a process that was just born, wherever its maker is, joins the one that it is to be in. `link` is its pidfd of the
    /// worker.
    pub fn join(&self, batch: &mut Batch, process: Pid, link: u32) {
        self.enter(batch, self.image.ipc_of_process(process).0, link);
    }

    /// The calls by which a process attaches a System V segment where that is: what `attach` adds, or that in another namespace, to which it goes
    /// for them.
    pub fn attach(
        &self,
        batch: &mut Batch,
        (process, segment): (Pid, u32),
        link: u32,
        attach: impl FnOnce(&mut Batch),
    ) {
        let own = self.image.ipc_of_process(process).0;
        let there = self.image.segment_of(process, segment).map_or(own, |(number, _)| number);
        if own == there {
            return attach(batch);
        }
        self.enter(batch, there, link);
        attach(batch);
        self.enter(batch, own, link);
    }

    fn enter(&self, batch: &mut Batch, number: u32, link: u32) {
        let (_, flag) = IPC;
        if let Some(open) = usize::try_from(number).ok().and_then(|number| self.open.get(number)) {
            enter(batch, open, flag, link);
        }
    }
}

//! What only the thread can do that a ring belongs to: enable it, and have requests pass through it.

use super::restore::{memory, set_memory};
use super::shape;
use crate::failure::{Doing, Failure, Kind};
use crfs_sys::io_uring::Ring;
use crfs_tracee::{Arg, Batch};
use image_format::files::FileKind;
use image_format::io_uring::IoUring;
use image_format::layout::file_entry;
use image_format::{FileId, Image, Pid};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// `IORING_REGISTER_ENABLE_RINGS` (include/uapi/linux/io_uring.h, v6.18).
const ENABLE_RINGS: u32 = 12;

/// Brings the rings that belong to threads, which were made disabled, to where they were. `run` runs calls in a thread (of a process),
/// `link` is the thread's descriptor for the worker that holds `open`, and `staging` has their memory.
///
/// # Errors
/// When the system refuses.
pub fn restore_all(
    image: &Image,
    open: &BTreeMap<FileId, OwnedFd>,
    staging: &Path,
    link: u32,
    mut run: impl FnMut((Pid, Pid), &Batch) -> Result<Vec<i64>, Failure>,
) -> Result<(), Failure> {
    for (&id, file) in &image.files {
        let FileKind::IoUring(record) = &file.kind else { continue };
        let Some(thread) = record.issuer else { continue };
        let missing = || Failure::new(Kind::System, format!("{}: was not made", file_entry(id)));
        let process = image.processes.iter().find(|(_, process)| process.threads.contains_key(&thread));
        let (&process, _) = process.ok_or_else(missing)?;
        let worker_fd = open.get(&id).ok_or_else(missing)?;
        let way = Way { own: own_fd(image, process, thread, id), link, worker_fd: worker_fd.as_raw_fd() };
        restore(id, record, worker_fd, staging, |calls| run((process, thread), &way.batch(calls)))?;
    }
    Ok(())
}

fn restore(
    id: FileId,
    record: &IoUring,
    fd: &OwnedFd,
    staging: &Path,
    mut run: impl FnMut(&dyn Fn(&mut Batch, Arg)) -> Result<Vec<i64>, Failure>,
) -> Result<(), Failure> {
    let object = file_entry(id);
    let copy = fd.try_clone().doing(|| format!("{object}: duplicating it"))?;
    let ring = Ring::attach(copy, shape(record)).doing(|| format!("{object}: mapping the io_uring"))?;
    run(&|batch, fd| {
        let args = [fd, ENABLE_RINGS.into(), 0u64.into(), 0u32.into()];
        batch.call(libc::SYS_io_uring_register, &args, "io_uring_register(IORING_REGISTER_ENABLE_RINGS)");
    })?;
    let is_there = ring.advance_by(record.submitted, record.completed, |count| {
        let taken = run(&|batch, fd| {
            let args = [fd, count.into(), 0u32.into(), 0u32.into(), 0u64.into(), 0u64.into()];
            batch.call(libc::SYS_io_uring_enter, &args, "io_uring_enter");
        })?;
        Ok::<_, Failure>(taken.contains(&i64::from(count)))
    })?;
    let arrived = if is_there { Ok(()) } else { Err(Errno::EIO) };
    arrived.doing(|| format!("{object}: passing requests through the new io_uring"))?;
    set_memory(id, &ring, &memory(id, staging)?)
}

/// How a thread comes to a descriptor of a ring.
struct Way {
    own: Option<u32>,
    link: u32,
    worker_fd: i32,
}

impl Way {
    fn batch(&self, calls: &dyn Fn(&mut Batch, Arg)) -> Batch {
        let mut batch = Batch::new();
        match self.own {
            Some(fd) => calls(&mut batch, fd.into()),
            None => {
                let args = [self.link.into(), self.worker_fd.into(), 0u64.into()];
                let fd = batch.call(libc::SYS_pidfd_getfd, &args, "pidfd_getfd");
                calls(&mut batch, fd.into());
                batch.call(libc::SYS_close, &[fd.into()], "close");
            }
        }
        batch
    }
}

/// The number under which a thread has a ring open: threads in user namespaces cannot pull it from the worker.
fn own_fd(image: &Image, process: Pid, thread: Pid, id: FileId) -> Option<u32> {
    let of = image.processes.get(&process)?;
    let owner = of.process.shares.descriptors.unwrap_or(process);
    let fds = of.threads.get(&thread)?.fds.as_ref().or(image.processes.get(&owner).map(|owner| &owner.fds))?;
    fds.iter().find(|fd| fd.file == id).map(|fd| fd.fd)
}

//! Rings of io_uring: how far each has come, what is registered with it, and how many requests a task has under way.
//!
//! A task's counter of requests is kept by processor, and includes some that are taken beforehand.
//!
//! Source: include/linux/io_uring_types.h, include/linux/percpu_counter.h, io_uring/io_uring.c (`io_task_refs_refill`, `tctx_inflight`),
//! v6.18; io_uring_setup(2), io_uring_register(2).

use crate::error::Error;
use crate::feature::Feature;
use crate::files;
use crate::paths::Path;
use crate::state::{KernelState, View};
use crate::tasks::{Task, word};

/// A ring of io_uring_setup(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoUring {
    /// `IORING_SETUP_` flags.
    pub flags: u32,
    /// Entries to be submitted that it has room for.
    pub sq_entries: u32,
    /// Completions that it has room for.
    pub cq_entries: u32,
    /// Entries that were taken from it, modulo 2^32.
    pub submitted: u32,
    /// Completions that were given to it, modulo 2^32.
    pub completed: u32,
    /// What io_uring_register(2) has registered with it, as people call it.
    pub registered: Vec<&'static str>,
    /// Whether completions wait for room in it.
    pub has_overflown: bool,
    /// The task that alone may submit to it (IORING_SETUP_SINGLE_ISSUER), by [`Task::address`]; it may have ended. 0: none.
    pub issuer: u64,
}

/// What a task has to do with rings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IoRequests {
    /// Requests that it made and that have not completed.
    pub under_way: u64,
    /// Rings that it has registered for itself (IORING_REGISTER_RING_FDS).
    pub rings: u32,
}

impl KernelState {
    /// The ring behind a descriptor, which must be one.
    ///
    /// # Errors
    /// As [`KernelState::file_address`].
    pub fn io_uring(&self, task: &Task, fd: i32) -> Result<IoUring, Error> {
        let view = self.view(Feature::IoUring, task)?;
        let ring = view.u64_from(files::file(&view, fd)?, &[Path::FilePrivate])?;
        let number = |path| view.u32_from(ring, &[path]);
        let pointer = |path| view.u64_from(ring, &[path]);
        let mut is_restricted = [0];
        view.bytes_from(ring, &[Path::RingRestricted], &mut is_restricted)?;
        let registered = [
            ("files", number(Path::RingFiles)? > 0),
            ("buffers", number(Path::RingBuffers)? > 0),
            ("buffer groups", pointer(Path::RingBufferGroups)? != 0),
            ("an eventfd", pointer(Path::RingEventfd)? != 0),
            ("personalities", pointer(Path::RingPersonalities)? != 0),
            ("restrictions", is_restricted != [0]),
        ];
        let overflow = ring.wrapping_add(view.offset(Path::RingOverflow)?);
        Ok(IoUring {
            flags: number(Path::RingFlags)?,
            sq_entries: number(Path::RingSqEntries)?,
            cq_entries: number(Path::RingCqEntries)?,
            submitted: number(Path::RingSubmitted)?,
            completed: number(Path::RingCompleted)?,
            registered: registered.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect(),
            has_overflown: pointer(Path::RingOverflow)? != overflow,
            issuer: pointer(Path::RingIssuer)?,
        })
    }

    /// The host's id of the task that a ring belongs to.
    pub(crate) fn io_uring_issuer(&self, ring: &IoUring) -> Result<u32, Error> {
        self.view(Feature::IoUring, &Task::caller(0))?.u32_from(ring.issuer, &[Path::TaskPid])
    }

    /// Whether the task has ever used a ring.
    ///
    /// # Errors
    /// As [`KernelState::brk`].
    pub fn uses_io_uring(&self, task: &Task) -> Result<bool, Error> {
        if self.absent(Feature::IoUringTask) {
            return Ok(false);
        }
        Ok(self.view(Feature::IoUringTask, task)?.u64(&[Path::TaskIoUring])? != 0)
    }

    /// The requests of a task. They may complete meanwhile; they then count as under way for the last time.
    ///
    /// # Errors
    /// As [`KernelState::brk`]; [`Error::FeatureOff`] where the variables of other processors cannot be found.
    pub fn io_requests(&self, task: &Task) -> Result<IoRequests, Error> {
        let view = self.view(Feature::IoUring, task)?;
        if view.u64(&[Path::TaskIoUring])? == 0 {
            return Ok(IoRequests::default());
        }
        let mut rings = vec![0; view.resolved(Path::TaskRings)?.field.size as usize];
        view.bytes(&[Path::TaskIoUring, Path::TaskRings], &mut rings)?;
        let rings = rings.chunks_exact(8).filter(|ring| word(ring, 0) != 0).count();
        let counted = self.sum(&view)?;
        let beforehand = i64::from(view.i32(&[Path::TaskIoUring, Path::TaskCachedRequests])?);
        Ok(IoRequests {
            under_way: u64::try_from(counted - beforehand).unwrap_or(0),
            rings: u32::try_from(rings).unwrap_or(u32::MAX),
        })
    }

    /// The counter of a task's requests: what all processors have added up, and what each has since.
    fn sum(&self, view: &View<'_>) -> Result<i64, Error> {
        let counters = view.u64(&[Path::TaskIoUring, Path::TaskRequestsPerCpu])?;
        let since = self.of_each_processor(view, counters, Path::TaskRequestsPerCpu)?;
        let before = view.u64(&[Path::TaskIoUring, Path::TaskRequests])?.cast_signed();
        Ok(before + since.into_iter().map(|counted| i64::from(i32::from_ne_bytes(counted))).sum::<i64>())
    }
}

//! Rings of io_uring_setup(2).

use crate::types::{Hex, PAGE_SIZE, Pid};
use serde::{Deserialize, Serialize};

/// A ring without requests under way. The memory that it shares with the program (the rings of both queues, and behind them the entries to
/// be submitted) lies in the raw file beside its entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IoUring {
    /// Its number, counted from 1: mappings name it.
    pub ring: u32,
    /// `IORING_SETUP_` flags.
    pub flags: Hex,
    /// How many entries to be submitted it has room for.
    pub sq_entries: u32,
    /// How many completions it has room for.
    pub cq_entries: u32,
    /// How many entries the kernel has taken, modulo 2^32.
    pub submitted: u32,
    /// How many completions the kernel has given, modulo 2^32.
    pub completed: u32,
    /// The thread that alone may submit to it (`IORING_SETUP_SINGLE_ISSUER`); null where any may, none has come to be it yet
    /// (`IORING_SETUP_R_DISABLED`), or it has ended.
    pub issuer: Option<Pid>,
}

/// A mapping of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MappedRing {
    /// Its number.
    pub ring: u32,
    /// Which of its memory: 0 or 0x8000000 for the rings of both queues, 0x10000000 for the entries to be submitted.
    pub offset: Hex,
}

/// `IORING_OFF_SQ_RING`, `IORING_OFF_CQ_RING`, `IORING_OFF_SQES` (include/uapi/linux/io_uring.h, v6.18).
pub const OFF_SQ_RING: u64 = 0;
/// The same memory once more.
pub const OFF_CQ_RING: u64 = 0x800_0000;
/// The entries to be submitted.
pub const OFF_SQES: u64 = 0x1000_0000;

/// `IORING_SETUP_` CQSIZE, CLAMP, R_DISABLED, SUBMIT_ALL, COOP_TASKRUN, TASKRUN_FLAG, SQE128, CQE32, SINGLE_ISSUER, DEFER_TASKRUN,
/// NO_SQARRAY. What the others tie to a thread of the kernel's or a device is not carried.
pub const FLAGS: u64 = 1 << 3
    | 1 << 4
    | R_DISABLED
    | 1 << 7
    | COOP_TASKRUN
    | TASKRUN_FLAG
    | SQE128
    | CQE32
    | SINGLE_ISSUER
    | DEFER_TASKRUN
    | NO_SQARRAY;
/// `IORING_SETUP_R_DISABLED`: nothing can be submitted yet.
pub const R_DISABLED: u64 = 1 << 6;
pub(crate) const COOP_TASKRUN: u64 = 1 << 8;
pub(crate) const TASKRUN_FLAG: u64 = 1 << 9;
const SQE128: u64 = 1 << 10;
const CQE32: u64 = 1 << 11;
/// `IORING_SETUP_SINGLE_ISSUER`: the ring belongs to one thread.
pub const SINGLE_ISSUER: u64 = 1 << 12;
pub(crate) const DEFER_TASKRUN: u64 = 1 << 13;
const NO_SQARRAY: u64 = 1 << 16;

/// `IORING_MAX_ENTRIES` and `IORING_MAX_CQ_ENTRIES` (io_uring/io_uring.c, v6.18).
pub const MAX_SQ_ENTRIES: u32 = 32768;
/// Twice as many.
pub const MAX_CQ_ENTRIES: u32 = 65536;

/// Bytes of `struct io_rings` before the completions (include/linux/io_uring_types.h, v6.18).
const HEADER: u64 = 64;
/// `SMP_CACHE_BYTES`, to which the indices are aligned.
const CACHE_LINE: u64 = 64;

impl IoUring {
    /// Whether it has an `IORING_SETUP_` flag.
    #[must_use]
    pub fn has(&self, flag: u64) -> bool {
        self.flags.0 & flag != 0
    }

    /// Bytes of the rings, in whole pages (`rings_size` in io_uring/io_uring.c, v6.18).
    #[must_use]
    pub fn rings_size(&self) -> u64 {
        let completions = u64::from(self.cq_entries) * if self.has(CQE32) { 32 } else { 16 };
        let indices = if self.has(NO_SQARRAY) { 0 } else { u64::from(self.sq_entries) * 4 };
        ((HEADER + completions).next_multiple_of(CACHE_LINE) + indices).next_multiple_of(PAGE_SIZE)
    }

    /// Bytes of an entry to be submitted.
    #[must_use]
    pub fn sqe_size(&self) -> u64 {
        if self.has(SQE128) { 128 } else { 64 }
    }

    /// Bytes of the entries to be submitted, in whole pages.
    #[must_use]
    pub fn sqes_size(&self) -> u64 {
        (u64::from(self.sq_entries) * self.sqe_size()).next_multiple_of(PAGE_SIZE)
    }

    /// Bytes of the raw file beside the entry.
    #[must_use]
    pub fn memory_size(&self) -> u64 {
        self.rings_size() + self.sqes_size()
    }

    /// Bytes that a mapping at this offset can show; None where there is nothing.
    #[must_use]
    pub fn shown(&self, offset: u64) -> Option<u64> {
        match offset {
            OFF_SQ_RING | OFF_CQ_RING => Some(self.rings_size()),
            OFF_SQES => Some(self.sqes_size()),
            _ => None,
        }
    }
}

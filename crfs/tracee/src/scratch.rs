//! The memory inside a tracee that injected calls use.

use crfs_sys::memory;

use crate::code::{CODE, ENTRY_SIZE, GADGET, LOOP, MARKER, RESULT_SIZE};
use crate::{InjectError, RemoteAddress, Stopped, Tracee};

const PAGE: u64 = 4096;

/// Where in a tracee there is a `syscall` instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gadget(pub RemoteAddress);

impl Gadget {
    /// The instruction by which a tracee entered the system call it is in: right before its instruction pointer. `None` when
    /// something else stands there, as in a task that was interrupted while it computed.
    #[must_use]
    pub fn of_blocked_call(tracee: &Tracee<Stopped>) -> Option<Self> {
        let address = tracee.regs().ok()?.rip.checked_sub(2)?;
        let mut bytes = [0u8; 2];
        memory::read(tracee.tid().pid(), address, &mut bytes).ok()?;
        (bytes == [0x0f, 0x05]).then_some(Self(RemoteAddress(address)))
    }
}

/// A private anonymous mapping inside the tracee, readable, writable and executable: a page of code, then the calls of a batch,
/// their results, and their data.
///
/// Threads may share one as long as only one injection runs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scratch {
    /// First address, page aligned.
    pub base: RemoteAddress,
    /// Size in bytes: whole pages, at least two.
    pub len: u64,
}

impl Scratch {
    /// Room for more than 400 calls and 30 KiB of data at once; longer batches are split.
    pub const DEFAULT_LEN: u64 = 64 * 1024;

    /// Puts the code in.
    pub(crate) fn prepare(&self, tracee: &Tracee<Stopped>) -> Result<(), InjectError> {
        if !self.base.0.is_multiple_of(PAGE) || !self.len.is_multiple_of(PAGE) || self.len < 2 * PAGE {
            return Err(InjectError::Scratch { base: self.base, len: self.len });
        }
        memory::write(tracee.tid().pid(), self.base.0, &CODE).map_err(|source| InjectError::Memory {
            tid: tracee.tid(),
            action: "write",
            address: self.base,
            source,
        })
    }

    pub(crate) fn gadget(&self) -> Gadget {
        Gadget(self.base + GADGET)
    }

    pub(crate) fn loop_start(&self) -> RemoteAddress {
        self.base + LOOP
    }

    pub(crate) fn marker(&self) -> RemoteAddress {
        self.base + MARKER
    }

    /// How many calls fit.
    pub(crate) fn max_calls(&self) -> usize {
        let per_call = ENTRY_SIZE + RESULT_SIZE;
        usize::try_from((self.len - PAGE) / 2).unwrap_or(usize::MAX) / per_call
    }

    pub(crate) fn entries(&self) -> RemoteAddress {
        self.base + PAGE
    }

    pub(crate) fn results(&self) -> RemoteAddress {
        self.entries() + (self.max_calls() * ENTRY_SIZE) as u64
    }

    /// Where the data begins: in the middle of what the code left, which is 16 bytes aligned.
    pub(crate) fn data(&self) -> RemoteAddress {
        self.base + PAGE + (self.len - PAGE) / 2
    }

    /// How much data fits. A 32-bit reference reads 64 bits, so the last word stays unused.
    pub(crate) fn max_data(&self) -> usize {
        usize::try_from((self.len - PAGE) / 2).unwrap_or(usize::MAX) - 8
    }
}

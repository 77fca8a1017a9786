//! `aio`: contexts of asynchronous I/O.

use crate::types::{Address, Hex};
use serde::{Deserialize, Serialize};

/// A line of `aio`: a context of io_setup(2) without requests under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AioContext {
    /// Where its ring is mapped, which is also the program's handle for it: a line of `mem.segments`.
    pub ring: Address,
    /// What has completed and was not read yet, oldest first.
    pub events: Vec<AioEvent>,
}

/// `struct io_event` (include/uapi/linux/aio_abi.h, v6.18).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AioEvent {
    /// The program's own word of the request.
    pub data: Hex,
    /// The address of the request (`struct iocb`).
    pub obj: Hex,
    /// What the call would have returned: bytes, or a negated errno.
    pub res: i64,
    /// Of a request in USB, a second result.
    pub res2: i64,
}

/// Bytes of `struct aio_ring` before the events (fs/aio.c, v6.18).
pub const RING_HEADER: u64 = 32;
/// Bytes of an event, in the ring as in the interface.
pub const EVENT_SIZE: u64 = 32;

/// How many events a ring of so many bytes has places for. One of them always stays free.
#[must_use]
pub fn ring_places(length: u64) -> u64 {
    length.saturating_sub(RING_HEADER) / EVENT_SIZE
}

//! `posix.mq`: POSIX message queues.
//!
//! They belong to the container's ipc namespace, or to one apart, and live as long as they have a name, or somebody has them open.

use crate::signal::Signal;
use crate::types::{Bytes, FileId, Hex, Octal, Pid};
use serde::{Deserialize, Serialize};

/// A line of `posix.mq`: a queue. The messages' bytes lie one after the other in `posix.mq.N` (raw).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PosixQueue {
    /// Counted from 1 inside the image: what descriptions call it.
    pub number: u32,
    /// The ipc namespace that it lies in: 0 for the container's own, or counted from 1 among the lines of `namespaces` of that type.
    pub namespace: u32,
    /// Its name, without the leading slash; null for one that was unlinked while it is open.
    pub name: Option<Bytes>,
    /// Permission bits.
    pub mode: Octal,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// `mq_maxmsg`: how many messages it may hold.
    pub capacity: u32,
    /// `mq_msgsize`: how many bytes a message may have.
    pub message_size: u32,
    /// What is queued, in the order in which it is received: by descending priority, and first in first.
    pub messages: Vec<PosixMessage>,
    /// Who asked to be told of the next message that meets an empty queue.
    pub notify: Option<QueueNotify>,
}

/// A message of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PosixMessage {
    /// `msg_prio`, below 32768.
    pub priority: u32,
    /// Bytes.
    pub size: u32,
}

/// A registration of mq_notify(3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueNotify {
    /// Who made it.
    pub process: Pid,
    /// The signal it gets (SIGEV_SIGNAL); null where it gets none (SIGEV_NONE) and only keeps others from registering.
    pub signal: Option<Signal>,
    /// `sigev_value`, which comes with the signal; 0 without one.
    pub value: Hex,
    /// In the place of a signal: what a socket gets (SIGEV_THREAD), of which the C library makes a thread.
    pub thread: Option<QueueThread>,
}

/// How a registration with SIGEV_THREAD is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueThread {
    /// A netlink socket that the process has open.
    pub socket: FileId,
    /// The 32 bytes that it gets, of which the kernel changes the last.
    pub cookie: Bytes,
}

impl PosixQueue {
    /// Bytes of all messages together.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.messages.iter().map(|message| u64::from(message.size)).sum()
    }
}

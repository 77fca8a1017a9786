//! `sysv.shm`, `sysv.sem`, `sysv.msg` and what processes have of them: System V IPC.
//!
//! Objects belong to the container's ipc namespace and live until they are removed, whether or not a process uses them. Their
//! ids are kept: programs hand them on. Times, and the process that used an object last, are the kernel's own and start anew.

use crate::types::{Hex, Octal, PAGE_SIZE};
use serde::{Deserialize, Serialize};

/// The System V objects of an ipc namespace, each kind by ascending place in the kernel's table: those of the container's own in files that
/// have their names, those of another in its line of `namespaces`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SysV {
    /// `sysv.shm`.
    pub segments: Vec<SharedSegment>,
    /// `sysv.sem`.
    pub semaphores: Vec<SemaphoreSet>,
    /// `sysv.msg`.
    pub queues: Vec<MessageQueue>,
}

/// `struct ipc64_perm`: whose an object is and how it is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    /// key_t, 32 bits; 0 is IPC_PRIVATE.
    pub key: Hex,
    /// The nine permission bits.
    pub mode: Octal,
    /// Owner.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Who made it.
    pub creator_uid: u32,
    /// The group of who made it.
    pub creator_gid: u32,
}

/// A line of `sysv.shm`: a shared memory segment. Its contents lie in `sysv.shm.ID` (raw).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedSegment {
    /// shmid.
    pub id: u32,
    /// Owner, key and mode.
    pub permissions: Permissions,
    /// Bytes, as shmget(2) was asked for.
    pub size: u64,
    /// Bytes of a page: more than usual with SHM_HUGETLB.
    pub page_size: u64,
    /// SHM_LOCK: kept in memory.
    pub locked: bool,
    /// SHM_DEST: removed already, and gone with its last attachment.
    pub destroyed: bool,
}

impl SharedSegment {
    /// Bytes of an attachment: whole pages.
    #[must_use]
    pub fn attached_size(&self) -> u64 {
        self.size.checked_next_multiple_of(self.page_size).unwrap_or(u64::MAX)
    }

    /// Bytes of its contents. Of huge pages whole ones: programs use what lies behind the size.
    #[must_use]
    pub fn content_size(&self) -> u64 {
        if self.page_size == PAGE_SIZE { self.size } else { self.attached_size() }
    }
}

/// A line of `sysv.sem`: a set of semaphores.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SemaphoreSet {
    /// semid.
    pub id: u32,
    /// Owner, key and mode.
    pub permissions: Permissions,
    /// The value of each, up to 32767.
    pub values: Vec<u32>,
}

/// A line of `sysv.msg`: a message queue. The messages' bytes lie one after the other in `sysv.msg.ID` (raw).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageQueue {
    /// msqid.
    pub id: u32,
    /// Owner, key and mode.
    pub permissions: Permissions,
    /// `msg_qbytes`: how many bytes it may hold.
    pub capacity: u64,
    /// What is queued, first in first.
    pub messages: Vec<Message>,
}

/// A message of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// `mtype`, 1 at least.
    #[serde(rename = "type")]
    pub kind: u64,
    /// Bytes.
    pub size: u64,
}

impl MessageQueue {
    /// Bytes of all messages together.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.messages.iter().fold(0, |sum, message| sum.saturating_add(message.size))
    }
}

/// A line of a process's `sysv.semadj`: what its end adds to the semaphores of a set (SEM_UNDO).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SemaphoreAdjustment {
    /// semid.
    pub set: u32,
    /// One for each semaphore of the set, from -32767 to 32767.
    pub adjustments: Vec<i32>,
}

/// A line of a process's `sysv.shmcount`: how many mappings of a segment it has. Shown only: `mem.segments` has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachedCount {
    /// shmid.
    pub segment: u32,
    /// Its lines in `mem.segments`.
    pub mappings: u64,
}

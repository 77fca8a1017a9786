//! `files/locks`: advisory locks that are held.

use crate::types::{FileId, Pid};
use serde::{Deserialize, Serialize};

/// A line of `files/locks`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// The description through which it was taken.
    pub file: FileId,
    /// What holds it, and how long.
    pub kind: LockKind,
    /// The process that took it, or the thread, where that has descriptors of its own; of a POSIX lock the one that holds it.
    pub process: Pid,
    /// For writing; otherwise for reading, beside others.
    pub exclusive: bool,
    /// First byte; 0 where the whole file is locked.
    pub start: u64,
    /// Last byte; null for the end of the file, wherever that will be.
    pub end: Option<u64>,
}

/// Kinds of locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockKind {
    /// flock(2): the description's.
    Flock,
    /// fcntl(2) F_SETLK: the process's.
    Posix,
    /// fcntl(2) F_OFD_SETLK: the description's.
    Ofd,
    /// fcntl(2) F_SETLEASE: the description's, whose owner is signalled before somebody else opens the file. Of the whole file.
    Lease,
}

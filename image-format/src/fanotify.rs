//! fanotify groups.

use crate::types::{Bytes, Hex};
use serde::{Deserialize, Serialize};

/// A fanotify group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fanotify {
    /// As fanotify_init(2) takes them.
    pub flags: Hex,
    /// Flags of the descriptors that come with events.
    pub event_flags: Hex,
    /// Whether its maker had no privileges, so that it is told nothing about who did what.
    pub unprivileged: bool,
    /// What it watches.
    pub marks: Vec<FanotifyMark>,
    /// Whether events wait to be read. None can be put back: after a restore FAN_Q_OVERFLOW stands for them all.
    pub unread: bool,
}

/// A mark of a fanotify group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FanotifyMark {
    /// What of the path.
    pub on: Marked,
    /// A path inside the container that leads there. May be edited.
    pub path: Bytes,
    /// Events that are told, and FAN_EVENT_ON_CHILD and FAN_ONDIR.
    pub mask: Hex,
    /// Events that are not told, whoever asks for them.
    pub ignored_mask: Hex,
    /// FAN_MARK_IGNORED_SURV_MODIFY, FAN_MARK_EVICTABLE, FAN_MARK_IGNORE.
    pub flags: Hex,
}

/// What a mark is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Marked {
    /// A file or directory.
    Inode,
    /// A mount.
    Mount,
    /// A file system.
    Filesystem,
}

/// Flags of groups that can be made again: FAN_CLOEXEC to FAN_REPORT_FD_ERROR, but not FAN_ENABLE_AUDIT, which the kernel does not tell
/// (include/uapi/linux/fanotify.h, v6.18). Those with FAN_REPORT_MNT watch namespaces.
pub const GROUP_FLAGS: u64 = 0x3fff & !0x40;
/// FAN_CLASS_CONTENT and FAN_CLASS_PRE_CONTENT, which exclude each other; FAN_UNLIMITED_QUEUE; FAN_UNLIMITED_MARKS.
pub const CLASSES: u64 = 0x4 | 0x8;
/// The queue of such a group never overflows.
pub const UNLIMITED_QUEUE: u64 = 0x10;
/// What only a privileged user may ask for (`FANOTIFY_ADMIN_INIT_FLAGS`, include/linux/fanotify.h, v6.18).
pub const PRIVILEGED: u64 = CLASSES | UNLIMITED_QUEUE | 0x20 | 0x80 | 0x100 | 0x2000;
/// A group without privileges names files by handles, with any of these.
pub const BY_HANDLE: u64 = 0x200 | 0x400;
/// `FANOTIFY_INIT_ALL_EVENT_F_BITS`: access mode, O_APPEND, O_NONBLOCK, O_DSYNC, O_SYNC, O_LARGEFILE, O_NOATIME, O_CLOEXEC.
pub const EVENT_FLAGS: u64 = 0o3 | 0o2000 | 0o4000 | 0o10000 | 0o4_000_000 | 0o100_000 | 0o1_000_000 | 0o2_000_000;
/// Events that nobody waits for to be answered, and FAN_EVENT_ON_CHILD and FAN_ONDIR.
pub const EVENTS: u64 = 0x1fff | 0x8000 | 0x1000_0000 | 0x0800_0000 | 0x4000_0000;
/// FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_OPEN_EXEC_PERM, FAN_PRE_ACCESS.
pub const PERMISSIONS: u64 = 0x1_0000 | 0x2_0000 | 0x4_0000 | 0x10_0000;
/// FAN_MARK_EVICTABLE.
pub const EVICTABLE: u64 = 0x200;
/// FAN_MARK_IGNORED_SURV_MODIFY, FAN_MARK_EVICTABLE, FAN_MARK_IGNORE.
pub const MARK_FLAGS: u64 = 0x40 | EVICTABLE | 0x400;

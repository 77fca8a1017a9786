//! What stat(2) shows of a node, and what a copying program may set on it.

use super::NodeId;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes that cp and cat are told to read at a time: one request of the kernel's default limit.
pub const BLOCK_SIZE: u32 = 1 << 20;

/// Attributes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Its id, shown as inode number.
    pub node: NodeId,
    /// A directory; otherwise a regular file.
    pub directory: bool,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u16,
    /// Two and the subdirectories for a directory, one for a file.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last access.
    pub accessed: SystemTime,
    /// Last modification.
    pub modified: SystemTime,
    /// Last change of attributes.
    pub changed: SystemTime,
}

/// A name that was found: the attributes, and for how long the kernel may believe them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The attributes.
    pub attr: Attr,
    /// For the name and the attributes alike.
    pub ttl: Duration,
}

/// What setattr is asked to change. `None`: left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes: truncate(2).
    pub size: Option<u64>,
    /// Last access.
    pub accessed: Option<SystemTime>,
    /// Last modification.
    pub modified: Option<SystemTime>,
}

impl Changes {
    /// Remembers what `later` sets. A size is never remembered: it is the content's.
    pub(super) fn absorb(&mut self, later: &Changes) {
        self.mode = later.mode.or(self.mode);
        self.uid = later.uid.or(self.uid);
        self.gid = later.gid.or(self.gid);
        self.accessed = later.accessed.or(self.accessed);
        self.modified = later.modified.or(self.modified);
    }
}

impl Attr {
    /// A directory of root's with `subdirectories` in it.
    pub(super) fn directory(node: impl Into<NodeId>, subdirectories: usize, time: SystemTime) -> Self {
        let links = u32::try_from(subdirectories).unwrap_or(u32::MAX - 2) + 2;
        Attr { directory: true, mode: 0o700, links, ..Attr::file(node, 0, time) }
    }

    /// A file of root's.
    pub(super) fn file(node: impl Into<NodeId>, size: u64, time: SystemTime) -> Self {
        Attr {
            node: node.into(),
            directory: false,
            size,
            mode: 0o600,
            links: 1,
            uid: 0,
            gid: 0,
            accessed: time,
            modified: time,
            changed: time,
        }
    }

    /// With what was set on it.
    pub(super) fn with(mut self, set: &Changes) -> Self {
        self.mode = set.mode.unwrap_or(self.mode);
        self.uid = set.uid.unwrap_or(self.uid);
        self.gid = set.gid.unwrap_or(self.gid);
        self.accessed = set.accessed.unwrap_or(self.accessed);
        self.modified = set.modified.unwrap_or(self.modified);
        self
    }
}

/// When a file was last modified.
pub(super) fn modified(metadata: &Metadata) -> SystemTime {
    let nanoseconds = Duration::from_nanos(u64::try_from(metadata.mtime_nsec()).unwrap_or(0));
    u64::try_from(metadata.mtime())
        .map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds) + nanoseconds)
}

//! `mounts`: what is mounted inside the container beside what `crctl run` mounts, what mount namespaces apart have otherwise, and the contents
//! of what lies in memory.

use crate::flags;
use crate::types::{Blob, Bytes, Octal, Timespec};
use serde::{Deserialize, Serialize};

/// A line of `mounts`: a mount that `crctl run` does not make, or makes otherwise; or one in which a mount namespace differs from that which
/// it began as a copy of. They are made again in the order of the lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// Counted from 1 inside the image.
    pub number: u32,
    /// In which mount namespace: 0 for the container's own, or the number of one that `namespaces` lists.
    pub namespace: u32,
    /// Where, inside the container, as that namespace shows it.
    pub path: Bytes,
    /// What is mounted.
    pub kind: MountKind,
    /// Attributes of this mount alone.
    pub flags: MountFlags,
    /// How it exchanges later mounts with others: `Documentation/filesystems/sharedsubtree.rst`, v6.18.
    pub propagation: Propagation,
}

/// What is mounted, and so how it is made again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum MountKind {
    /// A tmpfs, whose files the image has: they are listed in `mounts.N`, and their contents lie in `mounts.N.data`.
    Tmpfs(FileSystem),
    /// A directory or file of another mount: mount(2) MS_BIND.
    Bind(BindMount),
    /// A directory or file of the host that the container's root does not show: what container runtimes call a volume.
    HostPath(HostPath),
    /// In a namespace apart: a directory or file of the namespace that it began as a copy of, as it is there.
    Taken(BindMount),
    /// In a namespace apart: a mount that it has from the one it began as a copy of, whose flags or propagation were changed.
    Inherited,
    /// In a namespace apart: what the one it began as a copy of has under this path, and it has not.
    Unmounted,
    /// A mount that a container has from the host, whose flags or propagation were changed inside.
    Host,
    /// A file system that has nothing of its own to carry (proc, sysfs, devpts, mqueue, cgroup2), or has it elsewhere (overlay).
    Fresh(FreshMount),
}

impl MountKind {
    /// Whether it is an overlay, of parts of other file systems.
    #[must_use]
    pub fn is_overlay(&self) -> bool {
        matches!(self, MountKind::Fresh(fresh) if fresh.file_system == "overlay")
    }
}

impl crate::Image {
    /// The overlay that is the container's root, which is mounted before everything else.
    #[must_use]
    pub fn root_overlay(&self) -> Option<(&Mount, &FileSystem)> {
        let root = |mount: &&Mount| mount.namespace == 0 && mount.path.0 == b"/" && mount.kind.is_overlay();
        let found = self.mounts.iter().find(root)?;
        if let MountKind::Fresh(fresh) = &found.kind { Some((found, &fresh.options)) } else { None }
    }
}

/// What mount(2) gets for a new file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSystem {
    /// The name that /proc/PID/mountinfo shows for it.
    pub source: Bytes,
    /// Its options, separated by commas, without `ro` and `rw`.
    pub options: Bytes,
    /// The file system as a whole is read-only, not this mount of it alone.
    pub read_only: bool,
}

impl FileSystem {
    /// The bytes of options that mount(2) takes: a page of them, with the NUL at their end.
    pub const LONGEST_OPTIONS: usize = 4095;
}

/// A file system by its type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FreshMount {
    /// One of [`FreshMount::TYPES`].
    pub file_system: String,
    /// As mount(2) gets it.
    pub options: FileSystem,
}

impl FreshMount {
    /// The types that can be mounted again by their options alone.
    pub const TYPES: [&'static str; 6] = ["proc", "sysfs", "devpts", "mqueue", "overlay", "cgroup2"];

    /// How many bytes of options a file system of a type can have: overlay can be given its directories one by one.
    #[must_use]
    pub fn longest_options(file_system: &str) -> usize {
        if file_system == "overlay" { 128 * 1024 } else { FileSystem::LONGEST_OPTIONS }
    }
}

/// A part of another mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BindMount {
    /// Where inside the container it can be seen too, in the namespace that it is taken from. May be edited.
    pub source: Bytes,
}

/// A part of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPath {
    /// Where it stands on the host. May be edited.
    pub source: Bytes,
}

/// The peers of a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Propagation {
    /// The peer group it shares with (MS_SHARED), counted from 1 inside the image.
    pub peers: Option<u32>,
    /// Whom it receives from (MS_SLAVE).
    pub master: Option<Master>,
    /// MS_UNBINDABLE.
    pub unbindable: bool,
}

/// Whom a mount receives from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Master {
    /// A mount of the host's, as all that `crctl run` gives to a container do.
    Host,
    /// A peer group of the container's own.
    Peers(u32),
}

flags! {
    /// Attributes of a mount: the flags of mount(2), `include/uapi/linux/mount.h`, v6.18.
    MountFlags {
        MS_RDONLY = 1, MS_NOSUID = 2, MS_NODEV = 4, MS_NOEXEC = 8, MS_NOSYMFOLLOW = 0x100, MS_NOATIME = 0x400,
        MS_NODIRATIME = 0x800, MS_RELATIME = 0x20_0000,
    }
}

/// A line of `mounts.N`: a file or directory of a tmpfs. A directory stands before what is in it; the first line is the top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreeEntry {
    /// Below the top, which is `.` itself.
    pub path: Bytes,
    /// What it is.
    pub node: Node,
    /// Permission bits; 0777 for a symbolic link.
    pub mode: Octal,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last modification.
    pub modified: Timespec,
    /// Extended attributes, access control lists among them.
    pub xattrs: Vec<ExtendedAttribute>,
}

/// What stands at a path of a tmpfs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Node {
    /// A directory.
    Directory,
    /// A FIFO.
    Fifo,
    /// The place of a Unix socket.
    Socket,
    /// A regular file.
    File(FileContent),
    /// A symbolic link, to this path.
    Symlink(Bytes),
    /// Another name of the file at an earlier path.
    Link(Bytes),
    /// A device.
    CharacterDevice(DeviceNumber),
    /// A device.
    BlockDevice(DeviceNumber),
}

/// A regular file of a tmpfs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileContent {
    /// Bytes.
    pub size: u64,
    /// The parts that are no holes, in order. Their contents follow each other in `mounts.N.data`, after those of earlier lines.
    pub parts: Vec<FilePart>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilePart {
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// The number of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceNumber {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// xattr(7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExtendedAttribute {
    /// With its namespace: `user.mime_type`.
    pub name: Bytes,
    /// Its value.
    pub value: Blob,
}

impl TreeEntry {
    /// The parts of a regular file; none for all else.
    #[must_use]
    pub fn parts(&self) -> &[FilePart] {
        match &self.node {
            Node::File(content) => &content.parts,
            _ => &[],
        }
    }
}

/// Bytes of `mounts.N.data`.
#[must_use]
pub fn data_size(tree: &[TreeEntry]) -> u64 {
    tree.iter().flat_map(TreeEntry::parts).fold(0, |sum, part| sum.saturating_add(part.length))
}

//! `manifest`: what an image is, where it was taken, and which files make it whole.

use crate::types::{Bytes, Hex, Timespec};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The format this crate writes and reads.
pub const FORMAT_VERSION: u32 = 2;

/// The manifest of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format: [`FORMAT_VERSION`].
    pub format: u32,
    /// The program that took the image, for people.
    pub generator: String,
    /// The container's name when it was frozen. The name it is restored under is the directory's.
    pub name: String,
    /// `x86_64`.
    pub architecture: String,
    /// Bytes a page.
    pub page_size: u64,
    /// The kernel it ran on.
    pub kernel: Kernel,
    /// The CPU it ran on.
    pub cpu: Cpu,
    /// The container's clocks at the moment of the freeze.
    pub clocks: Clocks,
    /// How the container was started, which is how its surroundings are made again.
    pub container: Container,
    /// An image this one builds on. None is written so far.
    pub parent: Option<String>,
    /// Every path of the image but the manifest's own, sorted.
    pub paths: Vec<PathEntry>,
}

/// The kernel an image was taken on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// uname(2) release.
    pub release: String,
    /// xxh3-64 of the vDSO's text, which the program may be executing: it must be the same where it is restored.
    pub vdso: Hex,
    /// Bytes of the vDSO mapping.
    pub vdso_size: u64,
}

/// The CPU features an image needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// XCR0-style mask of the state components in the saved registers (`thread` files).
    pub xfeatures: Hex,
    /// Bytes of an extended state area.
    pub xsave_size: u32,
    /// `flags` of /proc/cpuinfo that programs see through CPUID: all must be there where it is restored.
    pub flags: Vec<String>,
}

/// Clocks as the container reads them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clocks {
    /// `CLOCK_REALTIME`: when the image was taken.
    pub realtime: Timespec,
    /// `CLOCK_MONOTONIC`: continues from here.
    pub monotonic: Timespec,
    /// `CLOCK_BOOTTIME`: continues from here.
    pub boottime: Timespec,
}

/// What surrounds the processes, and the names a user may change in a copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// The directory that is the container's `/`; the host's own root when null.
    pub root: Option<Bytes>,
    /// The kinds of namespaces that it shares with the host; it has the others of its own.
    pub host_namespaces: BTreeSet<NamespaceKind>,
    /// uts node name. May be edited; the host's own stays as it is.
    pub hostname: Bytes,
    /// uts domain name. May be edited; the host's own stays as it is.
    pub domainname: Bytes,
    /// Whether `lo` is up in a network of its own; true where it shares the host's.
    pub loopback: bool,
}

impl Container {
    /// Whether it shares the host's namespace of this kind.
    #[must_use]
    pub fn shares(&self, kind: NamespaceKind) -> bool {
        self.host_namespaces.contains(&kind)
    }
}

/// A kind of namespace that a container has of its own or shares with the host, by the kernel's name for it (/proc/PID/ns). The
/// user namespace is not among them since it is always shared, nor is the time namespace: a restored container's clocks go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceKind {
    /// The root of what /proc/PID/cgroup shows.
    Cgroup,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Mounts.
    Mnt,
    /// Network.
    Net,
    /// Process ids. Where it is shared, the tree has any number of roots and no process 1.
    Pid,
    /// Host and domain name.
    Uts,
}

impl NamespaceKind {
    /// All of them.
    pub const ALL: [NamespaceKind; 6] = [
        NamespaceKind::Cgroup,
        NamespaceKind::Ipc,
        NamespaceKind::Mnt,
        NamespaceKind::Net,
        NamespaceKind::Pid,
        NamespaceKind::Uts,
    ];

    /// Its link's name in /proc/PID/ns.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            NamespaceKind::Cgroup => "cgroup",
            NamespaceKind::Ipc => "ipc",
            NamespaceKind::Mnt => "mnt",
            NamespaceKind::Net => "net",
            NamespaceKind::Pid => "pid",
            NamespaceKind::Uts => "uts",
        }
    }
}

/// A path of the image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathEntry {
    /// Relative to the image's top, parts joined by `/`.
    pub path: String,
    /// What stands there.
    pub kind: PathKind,
    /// Bytes of a raw or compressed file, as it stands there; null for the others, which may be edited.
    pub size: Option<u64>,
}

/// What stands at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathKind {
    /// A directory.
    Directory,
    /// One JSON object.
    Object,
    /// JSON Lines with an end line.
    Lines,
    /// Bytes as they are: page contents, queued data.
    Raw,
    /// Page contents, compressed ([`crate::seekable`]).
    Zstd,
}

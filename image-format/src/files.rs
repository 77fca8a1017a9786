//! `files/`: open file descriptions, and which of them are the standard streams.

use crate::ended::EndedTask;
use crate::fanotify::Fanotify;
use crate::flags;
use crate::io_uring::IoUring;
use crate::signal::{Signal, SignalSet};
use crate::socket::{InetSocket, NetlinkSocket, UnixSocket};
use crate::tty::Tty;
use crate::types::{Bytes, FileId, Hex, Octal, Pid, Timespec};
use serde::{Deserialize, Serialize};

/// One entry of `files/`: an open file description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// File status flags and access mode; without `O_WRONLY` and `O_RDWR` it is open for reading.
    pub flags: OpenFlags,
    /// The offset, where the kind has one.
    pub position: u64,
    /// Who is signalled about it, where that was ever said.
    pub owner: Option<Owner>,
    /// What is open.
    pub kind: FileKind,
}

/// Who is signalled about a description: with FASYNC among its flags whenever it becomes ready, otherwise for what a socket has
/// urgently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// What `id` names.
    pub kind: OwnerKind,
    /// Who; 0 for nobody, as when it has ended.
    pub id: Pid,
    /// Real user id of who set it, which decides whom it may signal. 0 where nobody is signalled.
    pub uid: u32,
    /// Effective user id of who set it.
    pub euid: u32,
    /// The signal in the place of SIGIO (F_SETSIG), which then tells descriptor and events.
    pub signal: Option<Signal>,
}

/// Kinds of owners, as F_SETOWN_EX has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OwnerKind {
    /// A thread.
    Thread,
    /// A process.
    Process,
    /// A process group.
    Group,
}

flags! {
    /// open(2) flags on x86-64.
    OpenFlags {
        O_WRONLY = 0o1, O_RDWR = 0o2, O_APPEND = 0o2000, O_NONBLOCK = 0o4000, O_DSYNC = 0o10000, FASYNC = 0o20000,
        O_DIRECT = 0o40000, O_LARGEFILE = 0o100_000, O_DIRECTORY = 0o200_000, O_NOFOLLOW = 0o400_000,
        O_NOATIME = 0o1_000_000, O_CLOEXEC = 0o2_000_000, __O_SYNC = 0o4_000_000, O_PATH = 0o10_000_000,
    }
}

/// What an open file description is open on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FileKind {
    /// A regular file.
    Regular(RegularFile),
    /// A file that no path leads to.
    Unnamed(Unnamed),
    /// A directory.
    Directory(Directory),
    /// What is no file or directory, opened with O_PATH as a mere place.
    PathOnly(PathOnly),
    /// A character device that keeps no state: null, zero, full, random, urandom.
    Device(Device),
    /// One end of a pipe.
    Pipe(Pipe),
    /// One end of a pipe with a name.
    Fifo(Fifo),
    /// eventfd(2).
    Eventfd(Eventfd),
    /// epoll_create(2).
    Epoll(Epoll),
    /// timerfd_create(2).
    Timerfd(Timerfd),
    /// signalfd(2).
    Signalfd(Signalfd),
    /// A file or directory of a pseudo file system.
    Pseudo(PseudoFile),
    /// A file or directory of /proc of a process or thread that has ended.
    EndedTask(EndedTask),
    /// pidfd_open(2).
    Pidfd(Pidfd),
    /// A namespace of the container, by /proc/PID/ns.
    Namespace(Namespace),
    /// inotify_init(2).
    Inotify(Inotify),
    /// fanotify_init(2).
    Fanotify(Fanotify),
    /// io_uring_setup(2).
    IoUring(IoUring),
    /// mq_open(3).
    MessageQueue(OpenQueue),
    /// Either side of a pseudo-terminal.
    Tty(Tty),
    /// A Unix socket. What is large stands apart: an image may have very many of the others.
    UnixSocket(Box<UnixSocket>),
    /// A TCP or UDP socket.
    InetSocket(Box<InetSocket>),
    /// A netlink socket.
    NetlinkSocket(Box<NetlinkSocket>),
}

impl FileKind {
    /// Whether it is a socket, of any family.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        matches!(self, FileKind::UnixSocket(_) | FileKind::InetSocket(_) | FileKind::NetlinkSocket(_))
    }

    /// Whether a lock of it can be taken again: the kernel locks everything but mere places (O_PATH), and a restore takes locks before it
    /// opens what needs the processes.
    #[must_use]
    pub fn can_be_locked(&self) -> bool {
        let late = matches!(
            self,
            FileKind::MessageQueue(_)
                | FileKind::Pseudo(_)
                | FileKind::EndedTask(_)
                | FileKind::Pidfd(_)
                | FileKind::Namespace(_)
        );
        !late && !self.is_socket() && !matches!(self, FileKind::PathOnly(_))
    }
}

impl File {
    /// The pipe that this is an end of, with or without a name.
    #[must_use]
    pub fn pipe(&self) -> Option<&Pipe> {
        match &self.kind {
            FileKind::Pipe(pipe) => Some(pipe),
            FileKind::Fifo(fifo) => Some(&fifo.pipe),
            _ => None,
        }
    }

    /// The POSIX message queue that this is open on, by its number in `posix.mq`.
    #[must_use]
    pub fn queue(&self) -> Option<u32> {
        match &self.kind {
            FileKind::MessageQueue(open) => Some(open.queue),
            _ => None,
        }
    }

    /// Bytes of the raw file beside the entry of a socket or ring.
    #[must_use]
    pub fn queue_size(&self) -> u64 {
        match &self.kind {
            FileKind::UnixSocket(socket) => socket.queue_size(),
            FileKind::InetSocket(socket) => socket.queue_size(),
            FileKind::IoUring(ring) => ring.memory_size(),
            _ => 0,
        }
    }
}

/// A regular file and what it was at the freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegularFile {
    /// Its path inside the container. May be edited.
    pub path: Bytes,
    /// Bytes.
    pub size: u64,
    /// Last modification.
    pub modified: Timespec,
    /// What a restore does when it is not as it was. May be edited.
    pub if_changed: IfChanged,
}

/// What a restore does with a file that is not as it was at the freeze.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum IfChanged {
    /// Refuses it where the program reads it or it has shrunk; otherwise tells it.
    Default,
    /// Refuses it.
    Strict,
    /// Tells it, and goes on at the same offset.
    Ignore,
    /// Tells it, and goes on at its end.
    Append,
    /// Puts a saved content in its place.
    Replace(Replacement),
}

/// A saved content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Replacement {
    /// The path inside the container of the file that has it.
    pub from: Bytes,
}

/// A file or directory whose content the kernel makes while it is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PseudoFile {
    /// Where it stands.
    pub file_system: PseudoFileSystem,
    /// Its path inside the container.
    pub path: Bytes,
    /// Whether it was read to its end. The position is 0 then: the end is wherever the content ends when it is made again.
    pub at_end: bool,
}

/// File systems whose files the kernel makes up, by the names of /proc/filesystems.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PseudoFileSystem {
    /// /proc.
    Proc,
    /// /sys.
    Sysfs,
    /// Control groups, version 2.
    Cgroup2,
    /// Control groups, version 1.
    Cgroup,
}

/// A file that the image itself holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unnamed {
    /// Its number: a line of `files/unnamed`.
    pub file: u32,
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Its path inside the container. May be edited.
    pub path: Bytes,
    /// The listing that is in progress, where `position` is not 0.
    pub listing: Option<Listing>,
    /// That it was deleted: one like it is made for a moment.
    pub deleted: Option<DeletedDirectory>,
}

/// What a position in a directory holds good for: the same directory, unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// Its inode.
    pub inode: u64,
    /// Last modification.
    pub modified: Timespec,
}

/// A directory that has no name any more. Nothing can be made in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeletedDirectory {
    /// Permissions.
    pub mode: Octal,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a descriptor with O_PATH names, unless it is a file or a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathOnly {
    /// Its path inside the container. May be edited.
    pub path: Bytes,
    /// What stands there.
    pub file_type: PathType,
}

/// File types of inode(7) but regular file and directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathType {
    /// A symbolic link, by O_NOFOLLOW.
    SymbolicLink,
    /// A pipe with a name.
    Fifo,
    /// A socket.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharacterDevice,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its path inside the container.
    pub path: Bytes,
    /// Device number, major.
    pub major: u32,
    /// Device number, minor.
    pub minor: u32,
}

/// One end of a pipe. The bytes queued lie in `pipe.N` beside the entries (raw), once for both ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipe {
    /// The pipe, counted from 1 inside the image.
    pub pipe: u32,
    /// F_GETPIPE_SZ.
    pub capacity: u64,
    /// Bytes queued.
    pub queued: u64,
    /// The bytes of each packet that is queued, first in first, as written with O_DIRECT; empty where bytes have no boundaries.
    pub packets: Vec<u32>,
}

/// One end of a pipe with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fifo {
    /// Its path inside the container. May be edited.
    pub path: Bytes,
    /// Open for reading, and nobody has opened it for writing since: poll(2) does not report POLLHUP yet.
    pub awaits_writer: bool,
    /// The pipe behind it, which all who have it open share.
    pub pipe: Pipe,
}

/// An eventfd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eventfd {
    /// The counter.
    pub count: Hex,
    /// EFD_SEMAPHORE.
    pub semaphore: bool,
}

/// An epoll instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoll {
    /// What it watches, in the order of its descriptors.
    pub targets: Vec<EpollTarget>,
}

/// A file watched by an epoll instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpollTarget {
    /// The descriptor it was added under.
    pub fd: u32,
    /// The description that it named then; by now it may name another, or none.
    pub file: FileId,
    /// `EPOLL` events.
    pub events: Hex,
    /// The caller's data.
    pub data: Hex,
}

/// A timerfd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timerfd {
    /// Clock id: 0 CLOCK_REALTIME, 1 CLOCK_MONOTONIC, 7 CLOCK_BOOTTIME, 8 CLOCK_REALTIME_ALARM, 9 CLOCK_BOOTTIME_ALARM.
    pub clock: u32,
    /// Flags it was set with (TFD_TIMER_ABSTIME is 1).
    pub settime_flags: u32,
    /// Until it fires; zero when disarmed.
    pub remaining: Timespec,
    /// Between firings.
    pub interval: Timespec,
    /// Expirations not yet read.
    pub ticks: Hex,
}

/// A pidfd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pidfd {
    /// The process, which may be a zombie; null for one that was waited for.
    pub pid: Option<Pid>,
    /// PIDFD_THREAD.
    pub thread: bool,
}

/// A namespace that the container's processes are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Which of them.
    pub kind: NamespaceType,
    /// A process that is in it, where it is one of those in `namespaces`; null where it is the container's own.
    pub process: Option<Pid>,
}

/// Types of namespaces, of the container's own and of those it shares with the host, by the kernel's name for them (/proc/PID/ns).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NamespaceType {
    /// The root of what /proc/PID/cgroup shows.
    Cgroup,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Mounts.
    Mnt,
    /// Network.
    Net,
    /// Process ids.
    Pid,
    /// CLOCK_MONOTONIC and CLOCK_BOOTTIME.
    Time,
    /// Users and capabilities.
    User,
    /// Host and domain name.
    Uts,
}

impl NamespaceType {
    /// All of them.
    pub const ALL: [NamespaceType; 8] = [
        NamespaceType::Cgroup,
        NamespaceType::Ipc,
        NamespaceType::Mnt,
        NamespaceType::Net,
        NamespaceType::Pid,
        NamespaceType::Time,
        NamespaceType::User,
        NamespaceType::Uts,
    ];

    /// Its link's name in /proc/PID/ns.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            NamespaceType::Cgroup => "cgroup",
            NamespaceType::Ipc => "ipc",
            NamespaceType::Mnt => "mnt",
            NamespaceType::Net => "net",
            NamespaceType::Pid => "pid",
            NamespaceType::Time => "time",
            NamespaceType::User => "user",
            NamespaceType::Uts => "uts",
        }
    }
}

/// An inotify instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inotify {
    /// What it watches, by number.
    pub watches: Vec<InotifyWatch>,
    /// The lowest number of the next watch.
    pub next_wd: u32,
    /// Whether events wait to be read. None can be put back: after a restore IN_Q_OVERFLOW stands for them all.
    pub unread: bool,
}

/// A watch of an inotify instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InotifyWatch {
    /// The number it has.
    pub wd: u32,
    /// What it watches, by its path inside the container. May be edited.
    pub path: Bytes,
    /// Events, and `IN_EXCL_UNLINK` and `IN_ONESHOT`, as inotify_add_watch(2) takes them.
    pub mask: Hex,
}

/// A POSIX message queue that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenQueue {
    /// Its number: a line of `posix.mq`.
    pub queue: u32,
}

/// A signalfd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signalfd {
    /// Signals it accepts.
    pub mask: SignalSet,
}

/// A line of `files/stdios`: a description that is one of the container's standard streams, joined to the outside again
/// on restore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stdio {
    /// The description.
    pub file: FileId,
    /// What it is joined to.
    pub stream: Stream,
}

/// The outside end of a standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The container's log, which `crctl logs` prints.
    Log,
    /// The container's console, to which `crctl attach` connects.
    Console,
}

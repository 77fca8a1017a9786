//! Which paths an image has, and what form each is in.

use crate::manifest::PathKind;
use crate::types::{FileId, Pid};

/// The manifest's path.
pub const MANIFEST: &str = "manifest";
/// The directory of open file descriptions.
pub const FILES: &str = "files";
/// Which open file descriptions are standard streams.
pub const STDIOS: &str = "files/stdios";
/// The system call filters of all threads.
pub const SECCOMP: &str = "seccomp";
/// Locks that are held.
pub const LOCKS: &str = "files/locks";
/// Files that no path leads to.
pub const UNNAMED: &str = "files/unnamed";
/// A process's page contents.
pub const MEM_PAGES: &str = "mem.pages";
/// A descriptor table: a process's, or one that a thread has for itself.
pub const FDS: &str = "fds";
/// Checksums of a process's page contents.
pub const MEM_SUMS: &str = "mem.sums";

/// Checksums of the raw files of which [`is_content`] is true.
pub const CONTENTS_SUMS: &str = "contents.sums";

/// The container's own mounts.
pub const MOUNTS: &str = "mounts";

/// The container's cgroup, and those made inside it.
pub const CGROUPS: &str = "cgroups";

/// Namespaces that some processes are in instead of the container's own.
pub const NAMESPACES: &str = "namespaces";

/// Files at the top, beside the manifest, that are always empty so far.
pub const CONTAINER_ABSENT: [&str; 4] =
    ["af_inet_listening", "af_inet_orphan_count", "af_inet_orphan_data", "af_inet_orphan_info"];

/// System V shared memory segments.
pub const SYSV_SHM: &str = "sysv.shm";
/// System V semaphore sets.
pub const SYSV_SEM: &str = "sysv.sem";
/// System V message queues.
pub const SYSV_MSG: &str = "sysv.msg";

/// POSIX message queues.
pub const POSIX_MQ: &str = "posix.mq";

/// Files at the top, beside the manifest, that hold content.
pub const CONTAINER_FILES: [&str; 7] = [CGROUPS, MOUNTS, NAMESPACES, POSIX_MQ, SYSV_MSG, SYSV_SEM, SYSV_SHM];

/// Files of a process that hold content, but for the page contents.
pub const PROCESS_FILES: [(&str, PathKind); 13] = [
    ("aio", PathKind::Lines),
    ("attr", PathKind::Object),
    (FDS, PathKind::Lines),
    ("ldt", PathKind::Lines),
    ("mem.segments", PathKind::Lines),
    (MEM_SUMS, PathKind::Lines),
    ("numa", PathKind::Lines),
    ("process", PathKind::Object),
    ("signal.action", PathKind::Lines),
    ("signal.pending", PathKind::Lines),
    ("sysv.semadj", PathKind::Lines),
    ("sysv.shmcount", PathKind::Lines),
    ("thread.list", PathKind::Lines),
];

/// Files that every thread has.
pub const THREAD_FILES: [(&str, PathKind); 9] = [
    ("attr", PathKind::Object),
    ("signal", PathKind::Object),
    ("signal.altstack", PathKind::Object),
    ("signal.pending", PathKind::Lines),
    ("thread", PathKind::Object),
    ("thread.frame", PathKind::Object),
    ("timers", PathKind::Lines),
    ("tls", PathKind::Object),
    ("wait.zombies", PathKind::Lines),
];

/// Bytes of an [`id_name`].
const ID_NAME: usize = 10;

/// Digit by digit: thousands of threads have ten files each, and a path is made of two names.
fn push_id(path: &mut String, id: u32) {
    path.push_str("0x");
    (0..8).rev().for_each(|digit| path.extend(char::from_digit(id >> (4 * digit) & 15, 16)));
}

/// The directory name of a process or thread, and the name of an open file description: `0x00003002`.
#[must_use]
pub fn id_name(id: u32) -> String {
    let mut name = String::with_capacity(ID_NAME);
    push_id(&mut name, id);
    name
}

/// The id that a name of eight hex digits stands for.
#[must_use]
pub fn parse_id(name: &str) -> Option<u32> {
    let digits = name
        .strip_prefix("0x")
        .filter(|d| d.len() == 8 && d.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))?;
    u32::from_str_radix(digits, 16).ok()
}

/// A process's directory.
#[must_use]
pub fn process_dir(pid: Pid) -> String {
    id_name(pid.0)
}

/// A path of directories that are called by ids, and a name.
fn below(ids: &[Pid], name: &str) -> String {
    let mut path = String::with_capacity(ids.len() * (ID_NAME + 1) + name.len());
    for id in ids {
        push_id(&mut path, id.0);
        path.push('/');
    }
    path.push_str(name);
    path
}

/// A file of a process.
#[must_use]
pub fn process_file(pid: Pid, name: &str) -> String {
    below(&[pid], name)
}

/// A file of a thread.
#[must_use]
pub fn thread_file(pid: Pid, tid: Pid, name: &str) -> String {
    below(&[pid, tid], name)
}

/// The descriptor table of a process (`owner` is its id), or one that its thread `owner` has for itself.
#[must_use]
pub fn table_file(process: Pid, owner: Pid) -> String {
    if owner == process { process_file(process, FDS) } else { thread_file(process, owner, FDS) }
}

/// The entry of an open file description.
#[must_use]
pub fn file_entry(file: FileId) -> String {
    format!("{FILES}/0x{:08x}", file.0)
}

/// The bytes queued in a pipe.
#[must_use]
pub fn pipe_data(pipe: u32) -> String {
    format!("{FILES}/pipe.{pipe}")
}

/// The content of a file that no path leads to.
#[must_use]
pub fn unnamed_data(number: u32) -> String {
    format!("{UNNAMED}.{number}")
}

/// The contents of a System V shared memory segment of an ipc namespace: the container's own (0), or one apart.
#[must_use]
pub fn segment_data(namespace: u32, id: u32) -> String {
    object_data(SYSV_SHM, namespace, id)
}

/// The messages of a System V message queue, likewise.
#[must_use]
pub fn queue_data(namespace: u32, id: u32) -> String {
    object_data(SYSV_MSG, namespace, id)
}

fn object_data(stem: &str, namespace: u32, id: u32) -> String {
    match namespace {
        0 => format!("{stem}.{id}"),
        apart => format!("{stem}.{apart}.{id}"),
    }
}

/// Whether a name is of [`segment_data`] or [`queue_data`], by its stem.
fn is_object_data(name: &str, stem: &str) -> bool {
    let Some((of, _)) =
        name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.')).and_then(|rest| rest.split_once('.'))
    else {
        return is_numbered(name, stem);
    };
    of != "0" && is_numbered(&format!("{stem}.{of}"), stem) && is_numbered(name, &format!("{stem}.{of}"))
}

/// The files of a tmpfs, by the number of its mount.
#[must_use]
pub fn mount_tree(number: u32) -> String {
    format!("{MOUNTS}.{number}")
}

/// The contents of these files.
#[must_use]
pub fn mount_data(number: u32) -> String {
    format!("{MOUNTS}.{number}.data")
}

/// The mount whose files a file of this name lists.
#[must_use]
pub fn parse_mount_tree(name: &str) -> Option<u32> {
    let number = name.strip_prefix(MOUNTS)?.strip_prefix('.')?;
    number.parse().ok().filter(|parsed: &u32| parsed.to_string() == number)
}

/// The messages of a POSIX message queue.
#[must_use]
pub fn posix_queue_data(number: u32) -> String {
    format!("{POSIX_MQ}.{number}")
}

/// Whether `name` is `stem`, a dot and a number as this crate writes it.
fn is_numbered(name: &str, stem: &str) -> bool {
    let number = name.strip_prefix(stem).and_then(|rest| rest.strip_prefix('.'));
    number.is_some_and(|number| number.parse::<u32>().is_ok_and(|n| n.to_string() == number))
}

/// What a pair of pseudo-terminals is.
#[must_use]
pub fn tty_file(number: u32) -> String {
    format!("{FILES}/tty.{number}")
}

/// The terminal whose file has this name (without its directory).
#[must_use]
pub fn parse_tty(name: &str) -> Option<u32> {
    let number = name.strip_prefix("tty.")?;
    number.parse().ok().filter(|parsed: &u32| parsed.to_string() == number)
}

/// The bytes queued in the socket of an entry, or the memory of its ring of io_uring.
#[must_use]
pub fn socket_data(id: FileId) -> String {
    format!("{FILES}/{}.queue", id_name(id.0))
}

/// Whether this is a raw file that may be as large as memory, but for page contents: shared memory, the files of a tmpfs, a file that no
/// path leads to.
#[must_use]
pub fn is_content(path: &str) -> bool {
    let mounted = |name: &str| name.strip_suffix(".data").is_some_and(|tree| parse_mount_tree(tree).is_some());
    is_numbered(path, UNNAMED) || is_object_data(path, SYSV_SHM) || mounted(path)
}

/// What kind of path this is, if an image can have it at all. Says nothing about whether a given image does.
#[must_use]
pub fn kind(path: &str) -> Option<PathKind> {
    let parts: Vec<&str> = path.split('/').collect();
    let find =
        |table: &[(&str, PathKind)], name: &str| table.iter().find(|(known, _)| *known == name).map(|&(_, kind)| kind);
    match parts[..] {
        [MANIFEST] => Some(PathKind::Object),
        [SECCOMP | CONTENTS_SUMS] => Some(PathKind::Lines),
        [FILES] => Some(PathKind::Directory),
        [FILES, "locks" | "stdios" | "unnamed"] => Some(PathKind::Lines),
        [FILES, name] if parse_id(name).is_some() || parse_tty(name).is_some() => Some(PathKind::Object),
        [FILES, name] if name.strip_suffix(".queue").is_some_and(|id| parse_id(id).is_some()) => Some(PathKind::Raw),
        [FILES, name] => (is_numbered(name, "pipe") || is_numbered(name, "unnamed")).then_some(PathKind::Raw),
        [name] if CONTAINER_ABSENT.contains(&name) || CONTAINER_FILES.contains(&name) => Some(PathKind::Lines),
        [name] if parse_mount_tree(name).is_some() => Some(PathKind::Lines),
        [name] if name.strip_suffix(".data").is_some_and(|tree| parse_mount_tree(tree).is_some()) => {
            Some(PathKind::Raw)
        }
        [name] if is_numbered(name, POSIX_MQ) => Some(PathKind::Raw),
        [name] if [SYSV_SHM, SYSV_MSG].iter().any(|stem| is_object_data(name, stem)) => Some(PathKind::Raw),
        [name] => parse_id(name).map(|_| PathKind::Directory),
        [process, name] => {
            parse_id(process)?;
            if name == MEM_PAGES {
                return Some(PathKind::Raw);
            }
            find(&PROCESS_FILES, name).or_else(|| parse_id(name).map(|_| PathKind::Directory))
        }
        [process, thread, name] => {
            parse_id(process)?;
            parse_id(thread)?;
            if name == FDS {
                return Some(PathKind::Lines);
            }
            find(&THREAD_FILES, name)
        }
        _ => None,
    }
}

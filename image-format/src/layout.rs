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
/// A process's page contents.
pub const MEM_PAGES: &str = "mem.pages";
/// Checksums of a process's page contents.
pub const MEM_SUMS: &str = "mem.sums";

/// Files at the top, beside the manifest, that version 1 knows only as empty.
pub const CONTAINER_ABSENT: [&str; 7] = [
    "af_inet_listening",
    "af_inet_orphan_count",
    "af_inet_orphan_data",
    "af_inet_orphan_info",
    "sysv.msg",
    "sysv.sem",
    "sysv.shm",
];

/// Files of a process that version 1 knows only as empty.
pub const PROCESS_ABSENT: [&str; 5] = ["aio", "ldt", "numa", "sysv.semadj", "sysv.shmcount"];

/// Files of a process that hold content, but for the page contents.
pub const PROCESS_FILES: [(&str, PathKind); 8] = [
    ("attr", PathKind::Object),
    ("fds", PathKind::Lines),
    ("mem.segments", PathKind::Lines),
    (MEM_SUMS, PathKind::Lines),
    ("process", PathKind::Object),
    ("signal.action", PathKind::Lines),
    ("signal.pending", PathKind::Lines),
    ("thread.list", PathKind::Lines),
];

/// Files of a thread.
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

/// The directory name of a process or thread, and the name of an open file description: `0x00003002`.
#[must_use]
pub fn id_name(id: u32) -> String {
    format!("0x{id:08x}")
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

/// A file of a process.
#[must_use]
pub fn process_file(pid: Pid, name: &str) -> String {
    format!("{}/{name}", id_name(pid.0))
}

/// A file of a thread.
#[must_use]
pub fn thread_file(pid: Pid, tid: Pid, name: &str) -> String {
    format!("{}/{}/{name}", id_name(pid.0), id_name(tid.0))
}

/// The entry of an open file description.
#[must_use]
pub fn file_entry(file: FileId) -> String {
    format!("{FILES}/{}", id_name(file.0))
}

/// The bytes queued in a pipe.
#[must_use]
pub fn pipe_data(pipe: u32) -> String {
    format!("{FILES}/pipe.{pipe}")
}

/// What kind of path this is, if an image can have it at all. Says nothing about whether a given image does.
#[must_use]
pub fn kind(path: &str) -> Option<PathKind> {
    let parts: Vec<&str> = path.split('/').collect();
    let find =
        |table: &[(&str, PathKind)], name: &str| table.iter().find(|(known, _)| *known == name).map(|&(_, kind)| kind);
    match parts[..] {
        [MANIFEST] => Some(PathKind::Object),
        [SECCOMP] => Some(PathKind::Lines),
        [FILES] => Some(PathKind::Directory),
        [FILES, "stdios"] => Some(PathKind::Lines),
        [FILES, name] if parse_id(name).is_some() => Some(PathKind::Object),
        [FILES, name] => {
            let number = name.strip_prefix("pipe.")?;
            let canonical = number.parse::<u32>().is_ok_and(|n| n.to_string() == number);
            canonical.then_some(PathKind::Raw)
        }
        [name] if CONTAINER_ABSENT.contains(&name) => Some(PathKind::Lines),
        [name] => parse_id(name).map(|_| PathKind::Directory),
        [process, name] => {
            parse_id(process)?;
            if name == MEM_PAGES {
                return Some(PathKind::Raw);
            }
            if PROCESS_ABSENT.contains(&name) {
                return Some(PathKind::Lines);
            }
            find(&PROCESS_FILES, name).or_else(|| parse_id(name).map(|_| PathKind::Directory))
        }
        [process, thread, name] => {
            parse_id(process)?;
            parse_id(thread)?;
            find(&THREAD_FILES, name)
        }
        _ => None,
    }
}

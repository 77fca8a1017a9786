//! The files of a process that are neither memory nor descriptors.

use crate::controls::MemoryPolicy;
use crate::files::DeletedDirectory;
use crate::signal::Signal;
use crate::types::{Address, Blob, Bytes, FileId, Hex, Octal, Pid};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// `process`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Its pid inside the container.
    pub pid: Pid,
    /// Its parent; 0 for one outside of the container.
    pub parent: Pid,
    /// The thread of the parent that made it, or adopted it; null when that is the parent's first.
    pub parent_thread: Option<Pid>,
    /// Process group.
    pub group: Pid,
    /// Session.
    pub session: Pid,
    /// The signal its parent gets when it ends; null when none (clone with exit signal 0).
    pub exit_signal: Option<Signal>,
    /// What it has in common with another process although it is no thread of it.
    pub shares: Shares,
    /// Whether job control has stopped it, and what its parent has not been told of that.
    pub job_control: JobControl,
    /// What is left of its first thread, if that ended while others go on: it has no thread directory then. Null while it lives.
    pub first_thread_ended: Option<EndedThread>,
    /// The controlling terminal, by its number in the container's /dev/pts.
    pub tty: Option<u32>,
    /// The executable, as /proc/PID/exe shows it.
    pub exe: Bytes,
    /// Working directory. May be edited.
    pub cwd: Bytes,
    /// That the working directory was deleted.
    pub cwd_deleted: Option<DeletedDirectory>,
    /// Root directory, inside the container's. May be edited.
    pub root: Bytes,
    /// File creation mask. May be edited.
    pub umask: Octal,
    /// Resource limits by their `RLIMIT_` names. May be edited.
    #[serde(deserialize_with = "limits")]
    pub limits: BTreeMap<String, Limit>,
    /// Arguments, shown: they live in memory, and an edit is refused.
    pub arguments: Vec<Bytes>,
    /// Environment, shown: it lives in memory, and an edit is refused.
    pub environment: Vec<Bytes>,
    /// Where the kernel thinks the parts of the address space are.
    pub layout: MemoryLayout,
}

/// What a process shares with another (clone(2) with single flags), by the pid of the process whose files tell of it; null where it
/// has its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// CLONE_VM: `mem.segments` and `mem.pages` are empty here.
    pub memory: Option<Pid>,
    /// CLONE_FILES: `fds` is empty here.
    pub descriptors: Option<Pid>,
    /// CLONE_FS: `cwd`, `root` and `umask`, which are the same in both.
    pub directories: Option<Pid>,
    /// CLONE_SIGHAND: `signal.action` is empty here.
    pub signal_actions: Option<Pid>,
}

/// A first thread that called exit(2) while others go on: until they end it is a zombie that nobody can wait for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndedThread {
    /// Its name.
    pub name: Bytes,
    /// Real, effective, saved and file system user id.
    pub uid: [u32; 4],
    /// Real, effective, saved and file system group id.
    pub gid: [u32; 4],
    /// The status it ended with, which /proc/PID/task/PID/stat shows: an exit code in bits 8 to 15.
    pub status: u32,
}

/// What the signals of job control made of a process (signal(7)), as waitpid(2) tells its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum JobControl {
    /// It is not stopped, and there is nothing to tell.
    Running,
    /// It is stopped until SIGCONT.
    Stopped(Stopped),
    /// SIGCONT made it go on, which WCONTINUED has yet to tell.
    Continued,
}

/// A stop by job control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stopped {
    /// SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU.
    pub signal: Signal,
    /// WUNTRACED has told the parent.
    pub told: bool,
}

/// A map that refuses a key given twice, of which serde would take the last.
fn limits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Limit>, D::Error> {
    struct Limits;
    impl<'de> Visitor<'de> for Limits {
        type Value = BTreeMap<String, Limit>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("resource limits by name")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut limits = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                if limits.contains_key(&name) {
                    return Err(A::Error::custom(format!("{name:?} is given twice")));
                }
                limits.insert(name, map.next_value()?);
            }
            Ok(limits)
        }
    }
    deserializer.deserialize_map(Limits)
}

/// A resource limit; null is RLIM_INFINITY.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The limit in force.
    pub soft: Option<u64>,
    /// Its ceiling.
    pub hard: Option<u64>,
}

/// `mm_struct`'s own notes, set again by PR_SET_MM_MAP.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the kernel's names (struct prctl_mm_map), one to one
pub struct MemoryLayout {
    pub start_code: Address,
    pub end_code: Address,
    pub start_data: Address,
    pub end_data: Address,
    pub start_brk: Address,
    pub brk: Address,
    pub start_stack: Address,
    pub arg_start: Address,
    pub arg_end: Address,
    pub env_start: Address,
    pub env_end: Address,
    /// /proc/PID/auxv as it is.
    pub auxv: Blob,
}

/// `attr` of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessAttr {
    /// `mm->dumpable`: 0 none, 1 as the user, 2 root only (prctl PR_SET_DUMPABLE, /proc/sys/fs/suid_dumpable).
    pub dumpable: u8,
    /// Adopts orphaned descendants (PR_SET_CHILD_SUBREAPER).
    pub child_subreaper: bool,
    /// /proc/PID/oom_score_adj.
    pub oom_score_adj: i32,
    /// /proc/PID/coredump_filter.
    pub coredump_filter: Hex,
    /// What holds for all its memory.
    pub memory: MemoryPolicy,
    /// /proc/PID/autogroup: the nice value of its session as a whole; null where the kernel groups none.
    pub autogroup_nice: Option<i32>,
}

/// A line of `fds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fd {
    /// The descriptor.
    pub fd: u32,
    /// Its open file description: the entry of this number under `files/`.
    pub file: FileId,
    /// FD_CLOEXEC.
    pub cloexec: bool,
}

/// A line of `thread.list`; the group leader stands first, if it lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadEntry {
    /// The thread's id.
    pub tid: Pid,
}

/// A line of `wait.zombies`: a child that died and was not yet waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Zombie {
    /// Its pid.
    pub pid: Pid,
    /// Process group.
    pub group: Pid,
    /// Session.
    pub session: Pid,
    /// Its name.
    pub name: Bytes,
    /// Real, effective, saved and file system user id.
    pub uid: [u32; 4],
    /// Real, effective, saved and file system group id.
    pub gid: [u32; 4],
    /// The signal its parent got; null for none.
    pub exit_signal: Option<Signal>,
    /// The wait(2) status: exit code in bits 8 to 15, or the killing signal in bits 0 to 6.
    pub status: u32,
}

/// A record of something that is not carried: the file holds its end line only, and any line is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Absent {}

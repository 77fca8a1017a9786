//! What is open below /proc/PID of a process or thread that has ended, or is somebody's working or root directory.

use crate::image::Image;
use crate::types::{Bytes, Pid};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A file or directory of /proc that told of a process or thread, and tells of nothing any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndedTask {
    /// Its path inside the container, as [`Entry`] has it.
    pub path: Bytes,
    /// Whether it was read to its end, so that the next read tells that. The position is 0 then.
    pub at_end: bool,
}

/// Directories of which nothing outlives the task; the empty name is that of the task itself. Of `fd` stat(2) fails, so that nobody can
/// tell what it is.
const DIRECTORIES: [&str; 7] = ["", "attr", "fdinfo", "map_files", "net", "ns", "task"];

/// Files whose text the kernel keeps between two reads (`struct seq_file`), so that there is an end (fs/proc/base.c, v6.18).
const TEXTS: [&str; 21] = [
    "autogroup",
    "cgroup",
    "comm",
    "cpuset",
    "io",
    "limits",
    "maps",
    "numa_maps",
    "oom_score",
    "personality",
    "sched",
    "schedstat",
    "smaps",
    "smaps_rollup",
    "stack",
    "stat",
    "statm",
    "status",
    "syscall",
    "timers",
    "wchan",
];

/// Files that are looked up anew by each read.
const OTHERS: [&str; 10] = [
    "auxv",
    "cmdline",
    "coredump_filter",
    "environ",
    "loginuid",
    "mem",
    "oom_adj",
    "oom_score_adj",
    "pagemap",
    "sessionid",
];

/// Ids are below this (`PID_MAX_LIMIT`, include/linux/threads.h, v6.18).
const ID_LIMIT: u32 = 1 << 22;

/// What a path below /proc/PID or /proc/PID/task/TID names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The process, or the thread of one.
    pub id: u32,
    /// Whether it stands below `task`.
    pub by_task: bool,
    name: &'a str,
}

impl<'a> Entry<'a> {
    /// By a path of a task that has ended. None where what it names may outlive that (namespaces, descriptors of others).
    #[must_use]
    pub fn of(path: &'a [u8]) -> Option<Self> {
        let below = std::str::from_utf8(path).ok()?.strip_prefix("/proc/")?;
        let (process, rest) = below.split_once('/').unwrap_or((below, ""));
        let (id, by_task, name) = match rest.strip_prefix("task/") {
            Some(rest) => {
                let (thread, rest) = rest.split_once('/').unwrap_or((rest, ""));
                number(process)?;
                (number(thread)?, true, rest)
            }
            None => (number(process)?, false, rest),
        };
        // Threads have no threads.
        let known = DIRECTORIES.contains(&name) || TEXTS.contains(&name) || OTHERS.contains(&name);
        let fits = known && !(by_task && name == "task") && !path.ends_with(b"/");
        fits.then_some(Entry { id, by_task, name })
    }

    /// The path of the same entry of another task: of the first thread of a process of that id.
    #[must_use]
    pub fn path(&self, id: u32) -> Bytes {
        let task = if self.by_task { format!("/task/{id}") } else { String::new() };
        let slash = if self.name.is_empty() { "" } else { "/" };
        Bytes(format!("/proc/{id}{task}{slash}{}", self.name).into_bytes())
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        DIRECTORIES.contains(&self.name)
    }

    /// Whether reading it comes to an end that it remembers.
    #[must_use]
    pub fn has_end(&self) -> bool {
        TEXTS.contains(&self.name)
    }
}

impl Image {
    /// What a working or root directory of this path is, if it is one of /proc of a process or thread that has ended: nobody has its id.
    #[must_use]
    pub fn ended_directory<'a>(&self, path: &'a Bytes) -> Option<Entry<'a>> {
        let entry = Entry::of(&path.0).filter(Entry::is_directory)?;
        (!self.tasks().any(|id| id == Pid(entry.id))).then_some(entry)
    }

    /// The ids of processes, threads and zombies.
    fn tasks(&self) -> impl Iterator<Item = Pid> {
        let threads = self.processes.values().flat_map(|process| &process.threads);
        let dead = threads.clone().flat_map(|(_, thread)| &thread.zombies).map(|zombie| zombie.pid);
        self.processes.keys().copied().chain(threads.map(|(&tid, _)| tid)).chain(dead)
    }

    /// The ids that a restore needs: those of tasks, groups and sessions.
    #[must_use]
    pub fn ids_in_use(&self) -> BTreeSet<u32> {
        let records = self.processes.values().map(|process| &process.process);
        let above = records.flat_map(|record| [record.group, record.session]);
        self.tasks().chain(above).map(|id| id.0).collect()
    }
}

/// An id as /proc writes it.
fn number(text: &str) -> Option<u32> {
    let id = text.parse().ok().filter(|id| (1..ID_LIMIT).contains(id))?;
    (id.to_string() == text).then_some(id)
}

/// What is wrong with a record.
pub(crate) fn problem(record: &EndedTask) -> Option<String> {
    let Some(entry) = Entry::of(&record.path.0) else {
        return Some("path: it is none of a process or thread whose end is the end of what it tells".to_owned());
    };
    if entry.path(entry.id) != record.path {
        return Some(format!("path: the thread is one of another process; a restore needs {}", entry.path(entry.id)));
    }
    (record.at_end && !entry.has_end()).then(|| "at_end: what such a path names has no end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_a_task() {
        let entry = |path: &'static str| Entry::of(path.as_bytes());
        for path in ["/proc/7", "/proc/7/stat", "/proc/7/task", "/proc/7/task/7", "/proc/7/task/7/schedstat"] {
            assert_eq!(entry(path).expect(path).path(7), path.into(), "{path}");
        }
        let thread = entry("/proc/7/task/9/stat").expect("of a thread");
        assert_eq!(
            (thread.id, thread.path(9), thread.path(5)),
            (9, "/proc/9/task/9/stat".into(), "/proc/5/task/5/stat".into())
        );
        assert!(thread.has_end() && !thread.is_directory() && entry("/proc/7/ns").expect("a directory").is_directory());
        let strange = [
            "/proc",
            "/proc/",
            "/proc/07",
            "/proc/0/stat",
            "/proc/4194304/stat",
            "/proc/x/stat",
            "/proc/7/",
            "/proc/7/stat/",
            "/proc/7/mountinfo",
            "/proc/7/fdinfo/3",
            "/proc/7/net/tcp",
            "/proc/7/task/9/task",
            "/proc/x/task/9",
            "/sys/7",
        ];
        for path in strange {
            assert_eq!(entry(path), None, "{path}");
        }
    }
}

//! What only the kernel's memory tells: the identity of descriptions, and how many ends a pipe has in the whole system.

use super::TableOf;
use super::gather::Description;
use super::seen::Holder;
use crfs_kstate::{KernelState, MessageQueue, OpenDescriptor, PendingTcp, PendingUnix, Task};
use std::collections::{BTreeMap, HashSet};
use std::fs;

/// The reader of kernel memory, with the tasks it knows by host pid.
pub(crate) struct Kernel<'a> {
    state: &'a KernelState,
    tasks: &'a BTreeMap<i32, Task>,
}

impl<'a> Kernel<'a> {
    /// From what the worker holds.
    pub(crate) fn new((state, tasks): (&'a KernelState, &'a BTreeMap<i32, Task>)) -> Self {
        Kernel { state, tasks }
    }

    /// The open descriptors of each table, ascending; None where one cannot be read, and kcmp(2) must do.
    pub(crate) fn descriptors(&self, tables: &[TableOf]) -> Option<Vec<Vec<OpenDescriptor>>> {
        tables.iter().map(|table| self.state.descriptors(self.tasks.get(&table.host)?).ok()).collect()
    }

    /// The reader, and the task of a process by host pid.
    pub(crate) fn task(&self, host: i32) -> Option<(&'a KernelState, &'a Task)> {
        Some((self.state, self.tasks.get(&host)?))
    }

    /// Whether a description may be locked, as is also said where that cannot be told. `host` is a process that holds it.
    pub(crate) fn may_be_locked(&self, host: i32, address: u64) -> bool {
        self.tasks.get(&host).is_none_or(|task| self.state.was_locked(task, address).unwrap_or(true))
    }

    /// How many descriptions in the whole system can read from a pipe, and how many can write to it. This process may hold it.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn pipe_ends(&self, end: &Description) -> Result<(u64, u64), String> {
        let Holder { host, fd, .. } = end.seen.holder;
        let ends = match (self.holder(host)?, end.address) {
            (None, _) => self.state.own_pipe_ends(fd),
            (Some(task), None) => self.state.pipe_ends(task, fd),
            (Some(task), Some(address)) => self.state.pipe_ends_of(task, fd, address),
        };
        let ends = ends.map_err(|error| error.to_string())?;
        Ok((u64::from(ends.readers), u64::from(ends.writers)))
    }

    /// The task of a process by host pid; None for this process, which holds what messages carry.
    fn holder(&self, host: i32) -> Result<Option<&Task>, String> {
        if host == std::process::id().cast_signed() {
            return Ok(None);
        }
        self.tasks.get(&host).map(Some).ok_or_else(|| "its process is not known to the reader".to_owned())
    }

    /// The lowest number that the next watch of an inotify instance may have; 0 before the first. This process may hold it.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn next_wd(&self, host: i32, fd: i32) -> Result<u32, String> {
        let next = match self.holder(host)? {
            None => self.state.own_inotify_next_wd(fd),
            Some(task) => self.state.inotify_next_wd(task, fd),
        };
        next.map_err(|error| error.to_string())
    }

    /// The flags of a fanotify group, with `FANOTIFY_UNPRIV`. This process may hold it.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn fanotify_flags(&self, host: i32, fd: i32) -> Result<u32, String> {
        let flags = match self.holder(host)? {
            None => self.state.own_fanotify_flags(fd),
            Some(task) => self.state.fanotify_flags(task, fd),
        };
        flags.map_err(|error| error.to_string())
    }

    /// What a POSIX message queue holds that this process has open.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn message_queue(&self, fd: i32) -> Result<MessageQueue, String> {
        self.state.own_message_queue(fd).map_err(|error| error.to_string())
    }

    /// Which socket one of this process's descriptors names, as a registration of mq_notify(3) tells it.
    pub(crate) fn notify_socket(&self, fd: i32) -> Option<u64> {
        self.state.own_notify_socket(fd).ok()
    }

    /// The connections that wait in a listening Unix socket that this process has open.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn pending_unix(&self, fd: i32) -> Result<Vec<PendingUnix>, String> {
        self.state.own_pending_unix(fd).map_err(|error| error.to_string())
    }

    /// The connections that wait in a listening TCP socket that this process has open.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn pending_tcp(&self, fd: i32) -> Result<Vec<PendingTcp>, String> {
        self.state.own_pending_tcp(fd).map_err(|error| error.to_string())
    }

    /// How often a process has executed a program, as registrations of mq_notify(3) count.
    ///
    /// # Errors
    /// In words.
    pub(crate) fn exec_id(&self, host: i32) -> Result<u32, String> {
        let task = self.tasks.get(&host).ok_or_else(|| "its process is not known to the reader".to_owned())?;
        self.state.exec_id(task).map_err(|error| error.to_string())
    }
}

/// Those of `pipes` (inode numbers) that a process other than `inside` (host pids) holds an end of, as far as /proc shows.
/// For running containers, whose kernel memory is not read.
pub(crate) fn pipes_held_by_others(pipes: &HashSet<u64>, inside: &HashSet<i32>) -> HashSet<u64> {
    if pipes.is_empty() {
        return HashSet::new();
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let descriptors = pids
        .filter(|pid| !inside.contains(pid))
        .flat_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten());
    descriptors
        .filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            link.to_str()?.strip_prefix("pipe:[")?.strip_suffix(']')?.parse::<u64>().ok()
        })
        .filter(|inode| pipes.contains(inode))
        .collect()
}

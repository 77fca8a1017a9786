//! The tasks of a container, with what /proc says of them: what every capture and every survey starts from.

use super::kernel::Kernel;
use super::proc::{Proc, Stat, Status};
use crate::failure::Failure;
use crate::registry::Record;
use crfs_kstate::ThreadRecord;
use image_format::Pid;
use std::collections::BTreeMap;

/// The container's processes.
#[derive(Clone, Debug, Default)]
pub struct Subjects {
    /// A thread that lives of the container's first process, as the host numbers it: the one whose namespaces are all the others' too.
    pub init: i32,
    /// Whether it is the root of the tree, and pid 1 of a pid namespace of its own; otherwise the tree may have several.
    pub has_init: bool,
    /// How many pid namespaces there are from ours to the container's, both counted.
    pub levels: usize,
    /// Ascending by [`Process::pid`].
    pub processes: Vec<Process>,
    /// Container ids of all tasks, by host id.
    pub ids: BTreeMap<i32, Pid>,
}

/// A process that is not a zombie.
#[derive(Clone, Debug)]
pub struct Process {
    /// Inside the container.
    pub pid: Pid,
    /// As the host numbers it.
    pub host: i32,
    /// The leader first, the others ascending.
    pub threads: Vec<Thread>,
}

/// A thread.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Inside the container.
    pub tid: Pid,
    /// As the host numbers it.
    pub host: i32,
    /// /proc/PID/task/TID/stat.
    pub stat: Stat,
    /// /proc/PID/task/TID/status.
    pub status: Status,
    /// Its ids in pid namespaces below the container's.
    pub inner: InnerIds,
    /// What kernel memory says of it, where that was read: of a frozen and traced thread, on a kernel that we can read.
    pub record: Option<ThreadRecord>,
}

/// Ids in the pid namespaces that a task is in below the container's, the outermost first; none for most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InnerIds {
    /// Its own.
    pub task: Vec<u32>,
    /// That of its group; 0 where that is not known.
    pub group: Vec<u32>,
    /// That of its session; 0 where that is not known.
    pub session: Vec<u32>,
}

impl InnerIds {
    /// Takes them out of what /proc says of a task, which is left with those of so many levels of pid namespaces: to the container's.
    #[must_use]
    pub fn take(status: &mut Status, levels: usize) -> Self {
        let below = |ids: &mut Vec<u32>| ids.split_off(levels.min(ids.len()));
        InnerIds {
            task: below(&mut status.ns_pid),
            group: below(&mut status.ns_pgid),
            session: below(&mut status.ns_sid),
        }
    }
}

impl Thread {
    /// Whether nothing is left of it but its exit status.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.stat.state, b'Z' | b'X')
    }

    /// Whether it is a thread of the kernel's, which carries out requests of io_uring (PF_IO_WORKER, include/linux/sched.h, v6.18).
    fn is_io_worker(&self) -> bool {
        self.stat.flags & 0x10 != 0
    }

    /// Its id as it sees it itself.
    #[must_use]
    pub fn own_id(&self) -> Pid {
        self.inner.task.last().map_or(self.tid, |&id| Pid(id))
    }

    /// Whether kernel memory shows that it has credentials, descriptors, directories, namespaces and restrictions in common with another
    /// thread. False also where that was not read.
    #[must_use]
    pub fn shares_all_with(&self, other: &Thread) -> bool {
        matches!((&self.record, &other.record), (Some(own), Some(other)) if own.shared == other.shared)
    }

    /// Whether kernel memory shows that it is in the namespaces of another thread, but for those of users and its own pid namespace.
    /// False also where that was not read.
    #[must_use]
    pub fn has_namespaces_of(&self, other: Option<&ThreadRecord>) -> bool {
        matches!((&self.record, other), (Some(own), Some(other)) if own.shared.same_namespaces(&other.shared))
    }

    /// What /proc would say of another thread of the process, if that one shares everything with this one.
    fn sibling(&self, host: i32, record: ThreadRecord) -> Option<Thread> {
        let levels = self.status.ns_pid.len();
        let ids = record.ids.get(record.ids.len().checked_sub(levels)?..)?;
        let tid = Pid(*ids.last()?);
        if self.record.as_ref()?.shared != record.shared {
            return None;
        }
        let stat = Stat { comm: record.name.clone(), flags: record.flags, exit_signal: -1, ..self.stat.clone() };
        let (pending, blocked) = (record.pending, record.blocked);
        let status = Status { ns_pid: ids.to_vec(), pending, blocked, ..self.status.clone() };
        Some(Thread { tid, host, stat, status, inner: InnerIds::default(), record: Some(record) })
    }
}

impl Subjects {
    /// The ids of the processes, as the container and as the host numbers them.
    #[must_use]
    pub fn numbers(&self) -> Vec<(Pid, i32)> {
        self.processes.iter().map(|process| (process.pid, process.host)).collect()
    }

    /// What kernel memory says of [`Subjects::init`], where that was read.
    #[must_use]
    pub fn of_init(&self) -> Option<&ThreadRecord> {
        let threads = self.processes.iter().flat_map(|process| &process.threads);
        threads.into_iter().find(|thread| thread.host == self.init)?.record.as_ref()
    }

    fn in_order(mut self, record: &Record) -> Self {
        // They come and go with requests, and have nothing that the program could see.
        self.processes.iter_mut().for_each(|process| process.threads.retain(|thread| !thread.is_io_worker()));
        let order = |process: &Process| (process.pid, process.host);
        self.processes.sort_by_key(order);
        self.init = first(record, &self.processes);
        let init = self.processes.iter().find(|process| process.host == self.init);
        let init = init.map(|init| (init.alive().host, init.leader().status.ns_pid.len()));
        if let Some((host, levels)) = init {
            self.init = host;
            self.levels = levels;
            self.processes.iter_mut().for_each(|process| process.number_from(levels));
            self.processes.sort_by_key(order);
        }
        let threads = self.processes.iter().flat_map(|process| &process.threads);
        self.ids = threads.map(|thread| (thread.host, thread.tid)).collect();
        self
    }
}

impl Process {
    /// The group leader.
    ///
    /// # Panics
    /// Never: a process is only made with one.
    #[must_use]
    pub fn leader(&self) -> &Thread {
        &self.threads[0]
    }

    /// Whether its first thread has ended while others go on: then /proc shows nothing of its memory and descriptors.
    #[must_use]
    pub fn is_leaderless(&self) -> bool {
        self.leader().has_ended()
    }

    /// The first thread that lives: what the process has is found through it.
    #[must_use]
    pub fn alive(&self) -> &Thread {
        self.threads.iter().find(|thread| !thread.has_ended()).unwrap_or(self.leader())
    }

    /// Takes the ids of so many levels of pid namespaces: a task of one inside the container's has an id in each, and the container's
    /// counts.
    fn number_from(&mut self, levels: usize) {
        for thread in &mut self.threads {
            thread.inner = InnerIds::take(&mut thread.status, levels);
            thread.tid = Pid(thread.status.own_pid());
        }
        self.pid = self.leader().tid;
    }
}

/// Reads who a container's processes are. One that is gone is left out: running tasks end at any moment, and frozen ones when they are
/// killed.
///
/// # Errors
/// When a task that lives cannot be read.
pub fn collect(proc: &mut Proc, record: &Record) -> Result<Subjects, Failure> {
    let mut subjects = Subjects { has_init: record.has_init(), ..Subjects::default() };
    for host in record.processes()? {
        match process(proc, host) {
            Ok(Some(process)) => subjects.processes.push(process),
            Ok(None) => {}
            Err(_) if is_gone(&format!("/proc/{host}")) => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(subjects.in_order(record))
}

/// Reads who a container's processes are, given that all their living threads stand still: leaders from /proc, and their threads from
/// kernel memory, where they share with the leader whatever /proc would be asked about. `states` are those of threads that would be seen
/// without us, as /proc has them: it shows what we do to them, that they are traced, and by whom.
///
/// # Errors
/// When a task that lives cannot be read.
pub fn held(
    proc: &mut Proc,
    kernel: &Kernel,
    record: &Record,
    states: &BTreeMap<i32, u8>,
) -> Result<Subjects, Failure> {
    let mut subjects = Subjects { has_init: record.has_init(), ..Subjects::default() };
    let by_process = kernel.by_process();
    for host in record.processes()? {
        let tids = by_process.get(&host).map_or(&[][..], Vec::as_slice);
        let found = match siblings(proc, kernel, host, tids) {
            Ok(None) => process(proc, host),
            found => found,
        };
        match found {
            Ok(found) => subjects.processes.extend(found),
            // Killed while frozen.
            Err(_) if is_gone(&format!("/proc/{host}")) => {}
            Err(failure) => return Err(failure),
        }
    }
    for thread in subjects.processes.iter_mut().flat_map(|process| &mut process.threads) {
        if let Some(&state) = states.get(&thread.host) {
            thread.stat.state = state;
            thread.status.tracer = 0;
        }
    }
    Ok(subjects.in_order(record))
}

/// A process with the threads `tids`, if these are all it has and kernel memory can be read.
fn siblings(proc: &mut Proc, kernel: &Kernel, host: i32, tids: &[i32]) -> Result<Option<Process>, Failure> {
    let (Some(record), Some(count)) = (kernel.thread(host)?, kernel.thread_count(host)?) else { return Ok(None) };
    let mut leader = thread(proc, host, host)?;
    if usize::try_from(count) != Ok(tids.len()) || !agree(&record, &leader) {
        return Ok(None);
    }
    leader.record = Some(record);
    let mut others = Vec::with_capacity(tids.len());
    for &tid in tids.iter().filter(|&&tid| tid != host) {
        others.push(match kernel.thread(tid)?.and_then(|record| leader.sibling(tid, record)) {
            Some(sibling) => sibling,
            None => thread(proc, host, tid)?,
        });
    }
    others.sort_by_key(|thread| thread.tid);
    let pid = leader.tid;
    others.insert(0, leader);
    Ok(Some(Process { pid, host, threads: others }))
}

/// Whether kernel memory and /proc say the same of a thread.
fn agree(record: &ThreadRecord, thread: &Thread) -> bool {
    let told = (&record.name, record.flags, record.blocked, record.pending);
    told == (&thread.stat.comm, thread.stat.flags, thread.status.blocked, thread.status.pending)
        && record.ids.ends_with(&thread.status.ns_pid)
}

/// The process that was written down as the first. Where it is no pid 1, the others outlive it: then it is the one with the lowest pid.
fn first(record: &Record, processes: &[Process]) -> i32 {
    let recorded = record.init.map_or(0, |init| init.pid);
    let lives = processes.iter().any(|process| process.host == recorded);
    match processes.first() {
        Some(lowest) if !record.has_init() && !lives => lowest.host,
        _ => recorded,
    }
}

/// The thread through which /proc shows what a process has: its first, or another that lives where that one has ended.
pub(crate) fn living_thread(host: i32) -> i32 {
    if !is_gone(&format!("/proc/{host}")) {
        return host;
    }
    let tasks = format!("/proc/{host}/task");
    let entries = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
    let mut threads = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    threads.find(|thread: &i32| !is_gone(&format!("{tasks}/{thread}"))).unwrap_or(host)
}

/// Where among the ids of a task, as /proc lists them, that of the pid namespace of a container's first process stands.
///
/// # Errors
/// When that process is gone.
pub(crate) fn depth(proc: &mut Proc, init: i32) -> Result<usize, Failure> {
    Ok(Status::read(proc, &format!("{init}/status"))?.ns_pid.len() - 1)
}

/// Whether a task has ended: its directory is away, or it has no more than its exit status.
pub(crate) fn is_gone(directory: &str) -> bool {
    let text = std::fs::read(format!("{directory}/stat")).unwrap_or_default();
    let state = text.iter().rposition(|&byte| byte == b')').and_then(|at| text.get(at + 2));
    matches!(state, None | Some(b'Z' | b'X'))
}

fn process(proc: &mut Proc, host: i32) -> Result<Option<Process>, Failure> {
    let mut threads = Vec::new();
    for tid in proc.numbers(format_args!("{host}/task"))? {
        match thread(proc, host, tid) {
            Ok(thread) => threads.push(thread),
            Err(_) if is_gone(&format!("/proc/{host}/task/{tid}")) => {}
            Err(failure) => return Err(failure),
        }
    }
    threads.sort_by_key(|thread| (thread.host != host, thread.tid));
    let alive = threads.iter().any(|thread: &Thread| !thread.has_ended());
    let leader = threads.first().filter(|leader| leader.host == host && alive).map(|leader| leader.tid);
    Ok(leader.map(|pid| Process { pid, host, threads }))
}

fn thread(proc: &mut Proc, process: i32, host: i32) -> Result<Thread, Failure> {
    let stat = Stat::read(proc, &format!("{process}/task/{host}/stat"))?;
    let status = Status::read(proc, &format!("{process}/task/{host}/status"))?;
    Ok(Thread { tid: Pid(status.own_pid()), host, stat, status, inner: InnerIds::default(), record: None })
}

//! The questions that only kernel memory answers, asked so that a feature that is off becomes an obstacle and no failure.

use super::Findings;
use crate::failure::{Doing, Failure, Kind};
use crfs_kstate::{Error, Feature, KernelState, Task, ThreadRecord};
use crfs_sys::pidfd;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;

/// The reader of kernel state with the tasks it may be asked about.
#[derive(Debug)]
pub struct Kernel {
    state: KernelState,
    tasks: BTreeMap<i32, Task>,
    /// What was asked for and cannot be told, with the first object it was needed for.
    off: BTreeMap<Feature, (String, String)>,
}

impl Kernel {
    /// Opens the reader, calibrating it if nobody has on this boot. Done before a freeze: it may take 0.1 s.
    ///
    /// # Errors
    /// [`Kind::Unsupported`] where kernel memory cannot be read at all.
    pub fn open(cache: &Path) -> Result<Self, Failure> {
        let state = KernelState::open_calibrated(Some(cache)).doing(|| "kernel state: opening its reader");
        let state = state.map_err(|failure| Failure { kind: Kind::Unsupported, ..failure })?;
        Ok(Kernel { state, tasks: BTreeMap::new(), off: BTreeMap::new() })
    }

    /// Adds the tasks that the calling thread traces now, which hold still until they are let go of.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub fn find_tracees(&mut self) -> Result<(), Failure> {
        self.tasks.extend(self.state.keep_tracees().doing(|| "kernel state: listing the traced tasks")?);
        Ok(())
    }

    /// Adds the threads of a process of a frozen cgroup, if all of them can be read where they stand in the freezer, and returns
    /// their ids. None where one is not there, or where only a tracer could tell something that is asked of each.
    #[must_use]
    pub fn find_frozen(&mut self, process: i32) -> Option<Vec<i32>> {
        if ASKED_OF_FROZEN.iter().any(|&feature| self.state.feature(feature).is_err()) {
            return None;
        }
        let opened = pidfd::open(nix::unistd::Pid::from_raw(process), false).ok()?;
        let tasks = self.state.keep_threads(opened.as_fd(), process).ok()?;
        let told = |task: &Task| Ok::<_, Error>(self.state.is_in_freezer(task)? && !self.state.is_filtered(task)?);
        if !tasks.values().all(|task| told(task).unwrap_or(false)) {
            return None;
        }
        let tids = tasks.keys().copied().collect();
        self.tasks.extend(tasks);
        Some(tids)
    }

    /// Forgets all tasks.
    pub fn forget_tasks(&mut self) {
        self.tasks.clear();
        self.state.forget();
    }

    /// The reader and the tasks by host id.
    #[must_use]
    pub fn parts(&self) -> (&KernelState, &BTreeMap<i32, Task>) {
        (&self.state, &self.tasks)
    }

    /// Asks about a task; `object` is the path that needs the answer. None, and an obstacle for [`Kernel::report`], when the
    /// feature is off.
    ///
    /// # Errors
    /// When the task is gone or the kernel's memory is not as expected.
    pub fn ask<T>(
        &mut self,
        host: i32,
        object: &str,
        question: impl FnOnce(&KernelState, &Task) -> Result<T, Error>,
    ) -> Result<Option<T>, Failure> {
        let Some(task) = self.tasks.get(&host) else {
            return Err(Failure::new(Kind::Stale, format!("{object}: its task {host} is gone; freeze again")));
        };
        match question(&self.state, task) {
            Ok(answer) => Ok(Some(answer)),
            Err(Error::FeatureOff { feature, why }) => {
                self.off.entry(feature).or_insert_with(|| (object.to_owned(), why));
                Ok(None)
            }
            Err(error) => Err(error).doing(|| format!("{object}: reading kernel state")),
        }
    }

    /// The tasks by process, as the host numbers both.
    #[must_use]
    pub fn by_process(&self) -> BTreeMap<i32, Vec<i32>> {
        let mut processes: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for task in self.tasks.values() {
            processes.entry(task.tgid()).or_default().push(task.tid());
        }
        processes
    }

    /// What a thread's task_struct says of it. None when that feature is off, which is no obstacle: /proc tells the same, more slowly.
    ///
    /// # Errors
    /// When the task is gone or the kernel's memory is not as expected.
    pub fn thread(&self, host: i32) -> Result<Option<ThreadRecord>, Failure> {
        self.record(host, KernelState::thread_record)
    }

    /// How many threads the process of a task has. None as for [`Kernel::thread`].
    ///
    /// # Errors
    /// As [`Kernel::thread`].
    pub fn thread_count(&self, host: i32) -> Result<Option<u32>, Failure> {
        self.record(host, KernelState::thread_count)
    }

    /// Whether the process of a task surely has no POSIX timers: false where that cannot be told.
    #[must_use]
    pub fn has_no_timers(&self, host: i32) -> bool {
        matches!(self.record(host, KernelState::posix_timers), Ok(Some(timers)) if timers.is_empty())
    }

    fn record<T>(
        &self,
        host: i32,
        read: impl FnOnce(&KernelState, &Task) -> Result<T, Error>,
    ) -> Result<Option<T>, Failure> {
        let Some(task) = self.tasks.get(&host) else { return Ok(None) };
        match read(&self.state, task) {
            Ok(found) => Ok(Some(found)),
            Err(Error::FeatureOff { .. }) => Ok(None),
            Err(error) => Err(error).doing(|| format!("task {host}: reading kernel state")),
        }
    }

    /// Whether a task neither runs nor is stopped for a tracer now. None where that cannot be told.
    #[must_use]
    pub fn is_at_rest(&self, host: i32) -> Option<bool> {
        self.state.is_at_rest(self.tasks.get(&host)?).ok()
    }

    /// Whether a task is still where it was found.
    #[must_use]
    pub fn is_there(&self, host: i32) -> bool {
        self.tasks.get(&host).is_some_and(|task| self.state.is_there(task))
    }

    /// Turns what could not be told into obstacles, one a feature.
    pub fn report(&self, findings: &mut Findings) {
        for (feature, (object, why)) in &self.off {
            block(findings, object, *feature, why);
        }
    }

    /// The features that every capture asks for and that are off here: obstacles for any process, known without a freeze.
    pub fn survey(&self, object: &str, findings: &mut Findings) {
        let always = |feature: &&Feature| ![&SOMETIMES_NEEDED[..], &ASKED_OF_FROZEN].concat().contains(feature);
        for &feature in Feature::ALL.iter().filter(always) {
            if let Err(disabled) = self.state.feature(feature) {
                block(findings, object, feature, &disabled.why);
            }
        }
    }
}

/// What a tracer tells of a thread that stopped for it, and the kernel's memory of one that did not. Without it everybody is stopped.
const ASKED_OF_FROZEN: [Feature; 8] = [
    Feature::Threads,
    Feature::ThreadRecord,
    Feature::Registers,
    Feature::ExtendedRegisters,
    Feature::DebugRegisters,
    Feature::SignalMask,
    Feature::PendingSignals,
    Feature::Rseq,
];

/// What is asked only where it matters (a wait with a time limit, a pipe), or not at all; all else is asked of every process or thread.
const SOMETIMES_NEEDED: [Feature; 19] = [
    Feature::AioRequests,
    Feature::IoUring,
    Feature::RestartKind,
    Feature::RestartNanosleep,
    Feature::RestartPoll,
    Feature::RestartFutex,
    Feature::ExitSignal,
    Feature::PosixTimers,
    Feature::WaitEnd,
    Feature::SocketWaitEnd,
    Feature::Files,
    Feature::FileLocks,
    Feature::PipeEnds,
    Feature::Terminals,
    Feature::MessageQueues,
    Feature::Inotify,
    Feature::Fanotify,
    Feature::PendingUnix,
    Feature::PendingTcp,
];

fn block(findings: &mut Findings, object: &str, feature: Feature, why: &str) {
    findings.block(
        object,
        format!("needs what the kernel keeps of {feature}, which cannot be read on this kernel: {why}"),
        "Use a kernel that crfs was tested on, with BTF of its own build; `crctl status` lists what is switched off",
    );
}

//! A thread as its task_struct has it: what /proc tells of each thread in a dozen files, from the copy that was made of it.
//!
//! Threads of a process share nearly everything, and then by pointing to the same objects: where two records have the same
//! [`Shared`], whatever /proc says about credentials, directories, descriptors, namespaces, seccomp and speculation of one thread
//! holds for the other.
//!
//! Source: include/linux/sched.h, include/linux/pid.h, v6.18; `proc_pid_status` and `do_task_stat` in fs/proc/array.c show the same members.

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::{KernelState, View};
use crate::tasks::{Task, word};

/// Pid namespaces cannot be nested deeper (`MAX_PID_NS_LEVEL` in include/linux/pid_namespace.h).
const MAX_LEVEL: u32 = 32;

/// `AUDIT_UID_UNSET`.
const UNSET: u32 = u32::MAX;

/// In `task_struct.__state`: stopped for its tracer. A task that runs, or may, has 0 there.
const TRACED: u64 = 8;
/// In the low byte of the same: sleeping until a signal comes, as in the freezer (`do_freezer_trap` in kernel/signal.c, v6.18); not in vfork, not
/// stopped by job control.
const INTERRUPTIBLE: u32 = 1;
/// include/uapi/linux/seccomp.h, v6.18.
const SECCOMP_MODE_FILTER: u32 = 2;

/// What a thread has for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ThreadRecord {
    /// Its id in each pid namespace from the host's to its own.
    pub ids: Vec<u32>,
    /// Its name, without the zeros that end it.
    pub name: Vec<u8>,
    /// `PF_*`.
    pub flags: u32,
    /// personality(2).
    pub personality: u32,
    /// PR_SET_TIMERSLACK, nanoseconds.
    pub timer_slack_ns: u64,
    /// Signals it blocks, signal 1 in bit 0.
    pub blocked: u64,
    /// Signals that wait for it alone.
    pub pending: u64,
    /// Who logged in; None for nobody, and on a kernel without audit.
    pub login_uid: Option<u32>,
    /// Whether it made processes that are not yet reaped.
    pub has_children: bool,
    /// What it may have in common with other threads.
    pub shared: Shared,
}

/// Which objects a thread uses (by where they lie in the kernel), and flags that threads mostly inherit. Only for comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    /// Zero for one that has ended.
    memory: u64,
    signal_actions: u64,
    pub(crate) credentials: u64,
    directories: u64,
    descriptors: u64,
    namespaces: u64,
    /// Mode and filters.
    pub(crate) seccomp: (u32, u64),
    /// `PFA_*`: no_new_privs, speculation.
    pub(crate) atomic_flags: u64,
    shadow_stack: u64,
}

impl Shared {
    /// Whether two tasks are in the same namespaces, but for those of users (which belong to credentials) and the one of its own id.
    #[must_use]
    pub fn same_namespaces(&self, other: &Self) -> bool {
        self.namespaces == other.namespaces
    }

    /// Which address space it uses. Equal for two that share it, and 0 for none; nothing else is to be made of it, here and below.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Which table of descriptors.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        self.descriptors
    }

    /// Which working directory, root and umask.
    #[must_use]
    pub fn directories(&self) -> u64 {
        self.directories
    }

    /// Which signal actions.
    #[must_use]
    pub fn signal_actions(&self) -> u64 {
        self.signal_actions
    }
}

impl KernelState {
    /// The record of a thread.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`].
    pub fn thread_record(&self, task: &Task) -> Result<ThreadRecord, Error> {
        let view = self.view(Feature::ThreadRecord, task)?;
        let mut name = vec![0; 16];
        view.bytes(&[Path::TaskComm], &mut name)?;
        name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
        let mut children = [0; 8];
        let list = view.bytes(&[Path::TaskChildren], &mut children)?;
        Ok(ThreadRecord {
            ids: ids(&view)?,
            name,
            flags: view.u32(&[Path::TaskFlags])?,
            personality: view.u32(&[Path::TaskPersonality])?,
            timer_slack_ns: view.u64(&[Path::TaskSlack])?,
            blocked: view.u64(&[Path::TaskBlocked])?,
            pending: view.u64(&[Path::TaskPending])?,
            login_uid: self.login_uid(&view)?,
            // An empty list points to itself.
            has_children: word(&children, 0) != list,
            shared: Shared {
                memory: view.u64(&[Path::TaskMm])?,
                signal_actions: view.u64(&[Path::TaskSighand])?,
                credentials: view.u64(&[Path::TaskRealCred])?,
                directories: view.u64(&[Path::TaskFs])?,
                descriptors: view.u64(&[Path::TaskFiles])?,
                namespaces: view.u64(&[Path::TaskNsproxy])?,
                seccomp: (view.u32(&[Path::TaskSeccompMode])?, view.u64(&[Path::TaskSeccompFilter])?),
                atomic_flags: view.u64(&[Path::TaskAtomicFlags])?,
                shadow_stack: self.known.path(Path::ShadowStack).map_or(Ok(0), |_| view.u64(&[Path::ShadowStack]))?,
            },
        })
    }

    fn login_uid(&self, view: &View<'_>) -> Result<Option<u32>, Error> {
        let uid = self.known.path(Path::LoginUid).ok().map(|_| view.u32(&[Path::LoginUid])).transpose()?;
        Ok(uid.filter(|&uid| uid != UNSET))
    }

    /// Whether a task neither runs nor is stopped for a tracer at this moment, whatever was kept of it. One that has ended is at rest.
    ///
    /// # Errors
    /// [`Error::FeatureOff`].
    pub fn is_at_rest(&self, task: &Task) -> Result<bool, Error> {
        let view = self.view(Feature::ThreadRecord, task)?;
        let (state, id) = (view.offset(Path::TaskState)?, view.offset(Path::TaskPid)?);
        let start = state.min(id);
        let at = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
        // Both in one read: the memory of a task that has ended may be another's.
        let mut bytes = vec![0; at(state).max(at(id)) + 4];
        if view.bytes_at(task.address().wrapping_add(start), Path::TaskState, &mut bytes).is_err() {
            return Ok(true);
        }
        let (state, id) = (word(&bytes, at(state)) & 0xffff_ffff, word(&bytes, at(id)) & 0xffff_ffff);
        Ok(u64::from(task.tid().unsigned_abs()) != id || (state != 0 && state & TRACED == 0))
    }

    /// Whether a task of a frozen cgroup is in the freezer, and off the processor: not traced by anybody, not stopped by job control, and not
    /// waiting for a child in vfork, all of which count as frozen too.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn is_in_freezer(&self, task: &Task) -> Result<bool, Error> {
        let view = self.view(Feature::Threads, task)?;
        let mut entry = [0; 8];
        // Linked to itself while nobody traces it.
        let at = view.bytes(&[Path::TaskPtraceEntry], &mut entry)?;
        let sleeps = view.u32(&[Path::TaskState])? & 0xff == INTERRUPTIBLE && view.u32(&[Path::TaskOnCpu])? == 0;
        Ok(sleeps && word(&entry, 0) == at)
    }

    /// Whether it has system call filters.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn is_filtered(&self, task: &Task) -> Result<bool, Error> {
        Ok(self.view(Feature::ThreadRecord, task)?.u32(&[Path::TaskSeccompMode])? == SECCOMP_MODE_FILTER)
    }

    /// Whether its task_struct is still its own, whatever was kept of it: that of one that has ended may be another's.
    #[must_use]
    pub fn is_there(&self, task: &Task) -> bool {
        let mut tid = [0; 4];
        let read = self.view(Feature::Tracees, task).and_then(|view| {
            let at = task.address().wrapping_add(view.offset(Path::TaskPid)?);
            view.bytes_at(at, Path::TaskPid, &mut tid)
        });
        read.is_ok() && i32::from_ne_bytes(tid) == task.tid()
    }

    /// How many threads its process has.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`].
    pub fn thread_count(&self, task: &Task) -> Result<u32, Error> {
        self.view(Feature::ThreadRecord, task)?.u32(&[Path::TaskSignal, Path::ThreadCount])
    }
}

/// The numbers of `task->thread_pid`.
fn ids(view: &View<'_>) -> Result<Vec<u32>, Error> {
    let level = view.u32(&[Path::ThreadPid, Path::PidLevel])?;
    if level > MAX_LEVEL {
        return Err(Error::List { tid: view.tid(), list: "pid.numbers" });
    }
    let stride = view.resolved(Path::Upid)?.field.size as usize;
    let number_at = usize::try_from(view.offset(Path::UpidNumber)?).unwrap_or(usize::MAX);
    let mut numbers = vec![0; stride * (level as usize + 1)];
    view.bytes(&[Path::ThreadPid, Path::PidNumbers], &mut numbers)?;
    Ok(numbers.chunks(stride).map(|upid| (word(upid, number_at) & 0xffff_ffff) as u32).collect())
}

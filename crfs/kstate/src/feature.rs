//! What this crate can read, piece by piece, and whether it may be trusted on this kernel.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// One group of getters that stands or falls together.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Feature {
            $($(#[$doc])* $name,)*
        }

        impl Feature {
            /// All of them, in the order of a status listing.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The name in listings, and in `CRFS_KSTATE_FAULT`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

features! {
    /// The walk over the traced tasks; without it nothing else can be read.
    Tracees = "tracees";
    /// What /proc tells of a thread, at the cost of one read.
    ThreadRecord = "thread_record";
    /// Signal handlers.
    SignalActions = "signal_actions";
    /// Alternate signal stack.
    AlternateStack = "alternate_stack";
    /// Addresses of set_tid_address(2) and CLONE_CHILD_SETTID.
    TidAddresses = "tid_addresses";
    /// What the parent gets when the task ends.
    ExitSignal = "exit_signal";
    /// PR_SET_PDEATHSIG.
    PdeathSignal = "pdeath_signal";
    /// Whether SIGSTOP or SIGCONT has an effect of which the parent was not told.
    JobControl = "job_control";
    /// Which kind of call would be restarted.
    RestartKind = "restart_kind";
    /// An interrupted nanosleep.
    RestartNanosleep = "restart_nanosleep";
    /// An interrupted poll.
    RestartPoll = "restart_poll";
    /// An interrupted futex wait.
    RestartFutex = "restart_futex";
    /// ITIMER_REAL.
    RealTimer = "real_timer";
    /// ITIMER_VIRTUAL and ITIMER_PROF.
    CpuTimers = "cpu_timers";
    /// Timers of timer_create(2).
    PosixTimers = "posix_timers";
    /// When a wait ends that leaves no restart block.
    WaitEnd = "wait_end";
    /// When a wait ends whose time limit is a socket's.
    SocketWaitEnd = "socket_wait_end";
    /// Adjustments that semop(2) with SEM_UNDO would undo.
    SemUndo = "sem_undo";
    /// Local descriptor table.
    Ldt = "ldt";
    /// Whether there are contexts of io_setup(2).
    Aio = "aio";
    /// Contexts of io_setup(2), and how many of their requests are under way.
    AioRequests = "aio_requests";
    /// Whether a task has used a ring of io_uring_setup(2).
    IoUringTask = "io_uring_task";
    /// Rings of io_uring_setup(2), and how many requests of a task are under way.
    IoUring = "io_uring";
    /// ioperm(2) and iopl(2).
    IoPermission = "io_permission";
    /// Where code, data, heap, stack, arguments and environment lie.
    MemoryLayout = "memory_layout";
    /// PR_SET_DUMPABLE.
    Dumpable = "dumpable";
    /// PR_SET_SECUREBITS.
    Securebits = "securebits";
    /// PR_SET_CHILD_SUBREAPER.
    Subreaper = "subreaper";
    /// PR_SET_SYSCALL_USER_DISPATCH.
    SyscallDispatch = "syscall_dispatch";
    /// set_thread_area(2) entries of the GDT.
    TlsArray = "tls_array";
    /// From a process to its threads, traced or not.
    Threads = "threads";
    /// General registers.
    Registers = "registers";
    /// The extended state: x87, SSE, AVX and the rest.
    ExtendedRegisters = "extended_registers";
    /// Breakpoints that a tracer set.
    DebugRegisters = "debug_registers";
    /// Blocked signals, also of a thread that waits with others.
    SignalMask = "signal_mask";
    /// Pending signals with what came with them.
    PendingSignals = "pending_signals";
    /// The area of restartable sequences.
    Rseq = "rseq";
    /// PR_SET_MDWE, PR_SET_THP_DISABLE but for advised memory, mlockall(2) of future mappings.
    MemoryFlags = "memory_flags";
    /// PR_SET_TSC and ARCH_SET_CPUID.
    ThreadFlags = "thread_flags";
    /// Keyrings of thread, process and session.
    Keyrings = "keyrings";
    /// Whether a task is in a Landlock domain.
    Landlock = "landlock";
    /// System call filters, and who listens to them.
    Seccomp = "seccomp";
    /// The descriptor table and the identity of open file descriptions.
    Files = "files";
    /// Whether a file was ever locked.
    FileLocks = "file_locks";
    /// Readers and writers of a pipe.
    PipeEnds = "pipe_ends";
    /// Pseudo-terminals and what is queued in them.
    Terminals = "terminals";
    /// Messages and notification of a POSIX message queue.
    MessageQueues = "message_queues";
    /// NUMA policies of threads and mappings.
    Numa = "numa";
    /// The number an inotify instance gives to its next watch.
    Inotify = "inotify";
    /// Whether a fanotify group was made without privileges.
    Fanotify = "fanotify";
    /// What was sent over Unix connections that wait to be accepted.
    PendingUnix = "pending_unix";
    /// What has arrived on TCP connections that wait to be accepted.
    PendingTcp = "pending_tcp";
}

impl Feature {
    /// The feature of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|feature| feature.name() == name)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a feature is off.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{feature} is switched off: {why}")]
#[serde(deny_unknown_fields)]
pub struct Disabled {
    /// The feature.
    pub feature: Feature,
    /// The reason, in words.
    pub why: String,
}

/// Whether a feature can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Calibration read back what it had set, in both directions.
    On,
    /// This kernel has no system call that could make such state: its getters answer "none" without reading.
    Absent {
        /// What told so.
        why: String,
    },
    /// Its getters return an error.
    Off(Disabled),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_lead_back() {
        for &feature in Feature::ALL {
            assert_eq!(Feature::from_name(feature.name()), Some(feature));
        }
        assert_eq!(Feature::from_name("no such"), None);
    }
}

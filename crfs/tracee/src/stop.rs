//! Why a tracee stands still, and how it ended.
//!
//! Source: ptrace(2), section "Stopped states".

use std::fmt;

use crfs_sys::HostPid;

/// Why a tracee is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// `PTRACE_EVENT_STOP`: it was interrupted, or is a new child that was attached at birth, or the stop of job control (SIGSTOP,
    /// SIGTSTP, SIGTTIN, SIGTTOU) holds it. No user instruction runs between this stop and its cause.
    Event {
        /// SIGTRAP, or the stop signal of a group stop.
        signal: i32,
    },
    /// A signal (1 to 64) is about to be delivered; it is lost unless passed on with `cont(Some(n))`.
    Signal(i32),
    /// Before a system call.
    SyscallEntry,
    /// After a system call.
    SyscallExit,
    /// It made a child whose exit signal is SIGCHLD; the child is traced and will stop by itself.
    Fork {
        /// The child.
        child: HostPid,
    },
    /// It made a child with `CLONE_VFORK`.
    Vfork {
        /// The child.
        child: HostPid,
    },
    /// The child of a vfork let go of its memory.
    VforkDone {
        /// The child.
        child: HostPid,
    },
    /// It made a thread, or a child with another exit signal.
    Clone {
        /// The child.
        child: HostPid,
    },
    /// It executed a program.
    Exec {
        /// The thread id it had before.
        former: HostPid,
    },
    /// It is about to die.
    Exit {
        /// The wait status it will have.
        status: i32,
    },
    /// A seccomp filter asked for the tracer.
    Seccomp {
        /// The filter's data.
        data: u16,
    },
}

impl Stop {
    /// The stop signal, if job control holds the task: then its state is T, and stays so after a detach.
    #[must_use]
    pub fn group_stop(self) -> Option<i32> {
        match self {
            Self::Event { signal } if signal != libc::SIGTRAP => Some(signal),
            _ => None,
        }
    }
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called exit.
    Code(i32),
    /// A signal killed it.
    Signal {
        /// Signal number.
        number: i32,
        /// Whether a core was dumped.
        core: bool,
    },
    /// Somebody else has its status: it was reaped, or its thread group replaced by an exec.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "it exited with {code}"),
            Self::Signal { number, .. } => write!(f, "signal {number} killed it"),
            Self::Unknown => f.write_str("how is not known"),
        }
    }
}

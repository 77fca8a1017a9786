//! What can go wrong: with a tracee, and with system calls injected into one.

use std::borrow::Cow;

use crfs_sys::HostPid;
use nix::errno::Errno;
use thiserror::Error;

use crate::{Exit, RemoteAddress, Stop};

/// A ptrace operation that failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The task died, or is dying.
    #[error("cannot {action} task {tid}: it is gone")]
    Gone {
        /// What was being done.
        action: &'static str,
        /// To which task.
        tid: HostPid,
    },
    /// The kernel refused.
    #[error("cannot {action} task {tid}: {source}")]
    Refused {
        /// What was being done.
        action: &'static str,
        /// To which task.
        tid: HostPid,
        /// Why not.
        source: Errno,
    },
}

impl Error {
    /// The one place where ESRCH is decoded.
    ///
    /// ptrace gives ESRCH for three things: there is no such task; it is not traced by this thread; it is traced but not stopped.
    /// The second cannot happen while handles are only made by seizing, and neither can the third to a `Tracee<Stopped>`, except
    /// that SIGKILL ends a stop at any moment. So what is left is a task that is dead or about to be. waitpid's ECHILD is the same:
    /// the task is not ours (any more).
    pub(crate) fn new(action: &'static str, tid: HostPid, source: Errno) -> Self {
        match source {
            Errno::ESRCH | Errno::ECHILD => Self::Gone { action, tid },
            source => Self::Refused { action, tid, source },
        }
    }

    /// Whether the task simply died, which is a normal thing for a task to do.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Gone { .. })
    }
}

/// An injection that failed. Each variant names the task and the call that was being made.
#[derive(Debug, Error)]
pub enum InjectError {
    /// ptrace itself failed.
    #[error("while injecting '{label}': {source}")]
    Tracee {
        /// What the injected call is for.
        label: Cow<'static, str>,
        /// What ptrace said.
        #[source]
        source: Error,
    },
    /// The injected call ran and failed.
    #[error("task {tid}: {label} (system call {nr}): {errno}")]
    Call {
        /// In which task.
        tid: HostPid,
        /// What the call is for.
        label: Cow<'static, str>,
        /// Its number.
        nr: i64,
        /// Its place in the batch, from 0.
        index: usize,
        /// What it returned.
        errno: Errno,
    },
    /// The task died in the middle of it.
    #[error("task {tid} died while it ran '{label}': {exit}")]
    Died {
        /// Which task.
        tid: HostPid,
        /// What the first call of the batch is for.
        label: Cow<'static, str>,
        /// How it died.
        exit: Exit,
    },
    /// The call did not come back in time.
    #[error("task {tid}: '{label}' did not end in time; the task is lost to the tracer unless it was stopped again")]
    TimedOut {
        /// In which task.
        tid: HostPid,
        /// What the call is for.
        label: Cow<'static, str>,
    },
    /// The injected code itself faulted, as it does when its scratch memory is not mapped rwx.
    #[error(
        "task {tid}: injected code for '{label}' got signal {signal} at {rip}: is the scratch memory still mapped?"
    )]
    Fault {
        /// In which task.
        tid: HostPid,
        /// What the call is for.
        label: Cow<'static, str>,
        /// SIGSEGV, SIGILL, ...
        signal: i32,
        /// Where.
        rip: RemoteAddress,
    },
    /// The task stopped in a way that the call cannot cause.
    #[error("task {tid}: '{label}' ended in an unexpected stop: {stop:?}")]
    Unexpected {
        /// In which task.
        tid: HostPid,
        /// What the call is for.
        label: Cow<'static, str>,
        /// The stop.
        stop: Stop,
    },
    /// The scratch memory could not be read or written.
    #[error("task {tid}: cannot {action} scratch memory at {address}: {source}")]
    Memory {
        /// In which task.
        tid: HostPid,
        /// "read" or "write".
        action: &'static str,
        /// Where.
        address: RemoteAddress,
        /// Why not.
        #[source]
        source: Errno,
    },
    /// The scratch mapping is too small, or not page aligned.
    #[error("scratch memory of {len} bytes at {base}: at least two whole pages are needed")]
    Scratch {
        /// Where it begins.
        base: RemoteAddress,
        /// How long it is.
        len: u64,
    },
    /// One call needs more data at once than the scratch holds.
    #[error("'{label}' needs {needed} bytes of data at once, and the scratch memory holds {available}")]
    TooLarge {
        /// What the call is for.
        label: Cow<'static, str>,
        /// How much it points to.
        needed: usize,
        /// How much there is room for.
        available: usize,
    },
    /// An argument refers to a later call, or to data of another batch.
    #[error("'{label}' refers to a call or to data that its batch does not have before it")]
    Reference {
        /// What the call is for.
        label: Cow<'static, str>,
    },
    /// The child was made, but was not attached with its birth.
    #[error("task {tid}: the child of '{label}' is not traced: seize with trace_fork and trace_clone")]
    Untraced {
        /// The parent.
        tid: HostPid,
        /// What the child is for.
        label: Cow<'static, str>,
    },
    /// An earlier error lost the task.
    #[error("task {tid}: '{label}' cannot be injected, the task was lost before")]
    Lost {
        /// Which task.
        tid: HostPid,
        /// What was to be done.
        label: Cow<'static, str>,
    },
}

//! The pid of a task as the caller's own pid namespace counts it.

use std::fmt;

use nix::unistd::Pid;

/// A process or thread id in the caller's pid namespace, as opposed to the id the task has inside its container.
///
/// [`fmt::Display`] writes the bare decimal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPid(Pid);

impl HostPid {
    /// Wraps a raw `pid_t`.
    #[must_use]
    pub const fn new(raw: i32) -> Self {
        Self(Pid::from_raw(raw))
    }

    /// The raw `pid_t`.
    #[must_use]
    pub const fn raw(self) -> i32 {
        self.0.as_raw()
    }

    /// The form that nix's calls take.
    #[must_use]
    pub const fn pid(self) -> Pid {
        self.0
    }
}

impl From<Pid> for HostPid {
    fn from(pid: Pid) -> Self {
        Self(pid)
    }
}

impl From<HostPid> for Pid {
    fn from(pid: HostPid) -> Self {
        pid.0
    }
}

impl fmt::Display for HostPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

//! waitpid(2) for tracees and children of every kind (`__WALL`), never blocking: every wait has a deadline.
//!
//! Source: waitpid(2), ptrace(2).

use std::time::{Duration, Instant};

use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// What waitpid(2) reported of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It called exit.
    Exited {
        /// The low 8 bits of what it passed.
        code: i32,
    },
    /// A signal killed it.
    Signaled {
        /// Signal number.
        signal: i32,
        /// Whether a core was dumped.
        core: bool,
    },
    /// It stopped. For a tracee that was not seized with `TRACESYSGOOD` a system call stop looks like a SIGTRAP.
    Stopped {
        /// Signal number, with bit 7 set in a system call stop.
        signal: i32,
        /// `PTRACE_EVENT_*`, or 0.
        event: i32,
    },
}

fn decode(status: i32) -> Status {
    if libc::WIFEXITED(status) {
        Status::Exited { code: libc::WEXITSTATUS(status) }
    } else if libc::WIFSIGNALED(status) {
        Status::Signaled { signal: libc::WTERMSIG(status), core: libc::WCOREDUMP(status) }
    } else {
        Status::Stopped { signal: libc::WSTOPSIG(status), event: status >> 16 }
    }
}

fn waitpid(pid: i32, flags: i32) -> Result<Option<(Pid, Status)>> {
    let mut status = 0;
    // SAFETY: `status` is one int of ours.
    let result = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::WNOHANG | flags) };
    Ok(match Errno::result(result)? {
        0 => None,
        pid => Some((Pid::from_raw(pid), decode(status))),
    })
}

/// Takes the status of one child or tracee if it has one now. `ECHILD`: it is neither, or is reaped already.
///
/// Since Linux 5.13 this costs the same however many children the caller has (`do_wait_pid` in `kernel/exit.c`).
pub fn try_wait(tid: Pid) -> Result<Option<Status>> {
    if tid.as_raw() <= 0 {
        return Err(Errno::EINVAL);
    }
    Ok(waitpid(tid.as_raw(), 0)?.map(|(_, status)| status))
}

/// Takes the status of any child or tracee of the calling thread that has one now. `ECHILD`: there are none at all.
pub fn try_wait_any() -> Result<Option<(Pid, Status)>> {
    waitpid(-1, libc::__WNOTHREAD)
}

/// [`try_wait`] until there is a status; `None` when the deadline passed.
pub fn wait_until(tid: Pid, deadline: Instant) -> Result<Option<Status>> {
    let mut backoff = Backoff::new();
    loop {
        if let Some(status) = try_wait(tid)? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        backoff.pause();
    }
}

/// The pause between two looks at something that is expected within microseconds, but may take long.
///
/// The CPU is given away at first, so that a tracee on the same CPU runs at once; then come sleeps, which grow from 50 us to 1 ms.
/// Nothing else fits: pidfds do not report stops, and waiting for SIGCHLD would take it away from whoever else waits for it.
#[derive(Debug)]
pub struct Backoff {
    started: Instant,
    sleep: Duration,
}

impl Backoff {
    const YIELD_FOR: Duration = Duration::from_micros(200);
    const SHORTEST: Duration = Duration::from_micros(50);
    const LONGEST: Duration = Duration::from_millis(1);

    /// Starts impatient.
    #[must_use]
    pub fn new() -> Self {
        Self { started: Instant::now(), sleep: Self::SHORTEST }
    }

    /// Pauses once.
    pub fn pause(&mut self) {
        if self.started.elapsed() < Self::YIELD_FOR {
            std::thread::yield_now();
        } else {
            std::thread::sleep(self.sleep);
            self.sleep = (self.sleep + self.sleep / 8).min(Self::LONGEST);
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

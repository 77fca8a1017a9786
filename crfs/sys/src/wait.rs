//! waitpid(2) for tracees and children of every kind (`__WALL`), with a deadline for every wait.
//!
//! Source: waitpid(2), ptrace(2), sigtimedwait(2).

use std::time::{Duration, Instant};

use nix::Result;
use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::time::TimeSpec;
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
///
/// Sleeps until SIGCHLD tells of a stop or an end, and takes that signal from whoever else in this process waits for it.
pub fn wait_until(tid: Pid, deadline: Instant) -> Result<Option<Status>> {
    if let Some(status) = try_wait(tid)? {
        return Ok(Some(status));
    }
    let news = News::listen()?;
    loop {
        if let Some(status) = try_wait(tid)? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        news.wait(left.min(NOT_TOLD));
    }
}

/// How long it is believed that nothing happened since there was no signal: another thread of this process may have taken it, and a
/// process that ignores SIGCHLD gets none.
const NOT_TOLD: Duration = Duration::from_millis(1);

/// SIGCHLD, blocked in this thread as long as this lives: so it stays pending from when it is sent until it is waited for. One that
/// is not blocked is dropped at once, as its default action is to be ignored.
struct News {
    wanted: SigSet,
    before: SigSet,
}

impl News {
    fn listen() -> Result<Self> {
        let wanted = SigSet::from(Signal::SIGCHLD);
        Ok(News { before: wanted.thread_swap_mask(SigmaskHow::SIG_BLOCK)?, wanted })
    }

    /// Returns after this time at the latest.
    fn wait(&self, at_most: Duration) {
        let (time, set) = (TimeSpec::from(at_most), self.wanted.as_ref());
        // SAFETY: reads a signal set and a timespec; the signal's details are not asked for. Whatever ends it, the caller looks.
        unsafe { libc::sigtimedwait(set, std::ptr::null_mut(), time.as_ref()) };
    }
}

impl Drop for News {
    fn drop(&mut self) {
        // Nothing is wrong with the mask that was there before.
        let _ = self.before.thread_set_mask();
    }
}

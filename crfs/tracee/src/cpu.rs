//! The tracer's own CPU.

use crfs_sys::HostPid;
use crfs_sys::sched;
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::Error;

/// Keeps the calling thread on the CPU of the task it works on: a round of resume and stop costs half as much there as between two
/// CPUs. The tracee itself is never moved, since its affinity is state.
///
/// Dropping it gives the thread its CPUs back. Children made meanwhile inherit the one CPU, so make them before.
#[derive(Debug)]
pub struct TracerCpu {
    own: Vec<u64>,
    now: Option<usize>,
}

impl TracerCpu {
    /// Remembers the CPUs of the calling thread.
    ///
    /// # Errors
    /// What sched_getaffinity(2) says.
    pub fn new() -> Result<Self, Error> {
        let own = sched::affinity(Pid::from_raw(0))
            .map_err(|errno| Error::new("read the CPUs of tracer", HostPid::from(Pid::this()), errno))?;
        Ok(Self { own, now: None })
    }

    /// Moves the calling thread to the CPU that a task was last on.
    ///
    /// Where that is not allowed (another cpuset) nothing happens: it is only about speed.
    ///
    /// # Errors
    /// [`Error::Gone`] when there is no such task.
    pub fn follow(&mut self, tid: HostPid) -> Result<(), Error> {
        let cpu = last_cpu(tid).map_err(|errno| Error::new("find the CPU of", tid, errno))?;
        if self.now == Some(cpu) {
            return Ok(());
        }
        let mut one = vec![0u64; self.own.len().max(cpu / 64 + 1)];
        one[cpu / 64] = 1 << (cpu % 64);
        if sched::set_affinity(Pid::from_raw(0), &one).is_ok() {
            self.now = Some(cpu);
        }
        Ok(())
    }
}

impl Drop for TracerCpu {
    fn drop(&mut self) {
        if self.now.is_some() {
            // The CPUs were allowed before; if they are not now, the kernel has chosen others by itself.
            let _ = sched::set_affinity(Pid::from_raw(0), &self.own);
        }
    }
}

/// Field 39 of /proc/PID/stat; the name in field 2 may hold spaces and parentheses.
fn last_cpu(tid: HostPid) -> Result<usize, Errno> {
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat"))
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
        .map_err(|errno| if errno == Errno::ENOENT { Errno::ESRCH } else { errno })?;
    let (_, rest) = stat.rsplit_once(')').ok_or(Errno::EIO)?;
    rest.split_whitespace().nth(36).and_then(|field| field.parse().ok()).ok_or(Errno::EIO)
}

//! One CPU for the tracer and the tasks it makes.

use crfs_sys::HostPid;
use crfs_sys::sched;
use nix::errno::Errno;
use nix::unistd::Pid;

use crate::Error;

/// Keeps the calling thread on one CPU, and the tasks it makes there with it: a round of resume and stop costs half as much there as
/// between two CPUs.
///
/// What it [brings](OneCpu::bring) stays there, and so does everything that is cloned from it, until each task gets CPUs of its own.
/// So this is for tasks that are being made: the affinity of any other is state.
///
/// Dropping it gives the thread its CPUs back. Children and threads made meanwhile inherit the one CPU.
#[derive(Debug)]
pub struct OneCpu {
    all: Vec<u64>,
    one: Vec<u64>,
}

impl OneCpu {
    /// Stays on the CPU that the calling thread is on.
    ///
    /// # Errors
    /// What sched_getaffinity(2) and sched_setaffinity(2) say.
    pub fn stay() -> Result<Self, Error> {
        let error = |action| move |errno| Error::new(action, HostPid::from(Pid::this()), errno);
        let all = sched::affinity(Pid::from_raw(0)).map_err(error("read the CPUs of tracer"))?;
        let cpu = nix::sched::sched_getcpu().map_err(error("find the CPU of tracer"))?;
        let mut one = vec![0u64; all.len().max(cpu / 64 + 1)];
        one[cpu / 64] = 1 << (cpu % 64);
        sched::set_affinity(Pid::from_raw(0), &one).map_err(error("set the CPU of tracer"))?;
        Ok(Self { all, one })
    }

    /// The CPUs that the calling thread had, one bit each.
    #[must_use]
    pub fn all(&self) -> &[u64] {
        &self.all
    }

    /// Brings a task to this CPU. Where its cpuset does not allow that nothing happens: it is only about speed.
    ///
    /// # Errors
    /// [`Error::Gone`] when there is no such task.
    pub fn bring(&self, tid: HostPid) -> Result<(), Error> {
        match sched::set_affinity(tid.pid(), &self.one) {
            Err(Errno::ESRCH) => Err(Error::new("set the CPU of", tid, Errno::ESRCH)),
            _ => Ok(()),
        }
    }
}

impl Drop for OneCpu {
    fn drop(&mut self) {
        // The CPUs were allowed before; if they are not now, the kernel has chosen others by itself.
        let _ = sched::set_affinity(Pid::from_raw(0), &self.all);
    }
}

//! Stopping many tasks at once.

use std::collections::HashMap;
use std::time::Instant;

use crfs_sys::HostPid;

use crate::{Error, Exit, Running, SeizeOptions, Stop, Stopped, Tracee, Waited};

/// What became of each task.
#[derive(Debug, Default)]
pub struct StopAll {
    /// In a [`Stop::Event`], in the order of the list: those that job control holds are among them ([`Stop::group_stop`]).
    pub stopped: Vec<Tracee<Stopped>>,
    /// Died before they could be stopped.
    pub gone: Vec<(HostPid, Exit)>,
    /// Seized, but did not stop by the deadline: in uninterruptible sleep, as the parent of a vfork or a task that waits for a FUSE
    /// server. They are interrupted, and stop as soon as they can.
    pub late: Vec<Tracee<Running>>,
    /// Could not be seized: somebody else traces them, they are zombies, or it is not allowed.
    pub refused: Vec<(HostPid, Error)>,
}

impl StopAll {
    /// Goes on waiting for those that are late; they come after the others.
    pub fn wait_for_late(&mut self, deadline: Instant) {
        for tracee in std::mem::take(&mut self.late) {
            let tid = tracee.tid();
            match event_stop(tracee, deadline) {
                Ok(Waited::Stopped(tracee)) => self.stopped.push(tracee),
                Ok(Waited::Gone(exit)) => self.gone.push((tid, exit)),
                Ok(Waited::Running(tracee)) => self.late.push(tracee),
                Err(error) => self.refused.push((tid, error)),
            }
        }
    }
}

/// Seizes and interrupts all tasks, and then collects their stops.
///
/// Every stop is asked for before the first is awaited, so that they come in parallel. A signal that was on its way when the
/// task was seized is reported first: it is passed on, and the event stop follows when its frame is made, before the handler's
/// first instruction. In a frozen cgroup this holds too: the kernel looks for the tracer's request before it looks at the freezer,
/// and at the freezer before it takes a signal (`get_signal` in `kernel/signal.c`, v6.18).
///
/// Each task is asked for by its own id: waiting for any would walk the list of all tracees each time, and take the status of
/// children that are not in this list.
#[must_use]
pub fn stop_all(tids: Vec<HostPid>, deadline: Instant) -> StopAll {
    let mut result = StopAll::default();
    let places: HashMap<HostPid, usize> = tids.iter().copied().zip(0..).collect();
    for tid in tids {
        let seized = Tracee::seize(tid, SeizeOptions::default()).and_then(|tracee| tracee.interrupt().map(|()| tracee));
        match seized {
            Ok(tracee) => result.late.push(tracee),
            Err(Error::Gone { .. }) => result.gone.push((tid, Exit::Unknown)),
            Err(error) => result.refused.push((tid, error)),
        }
    }
    result.wait_for_late(deadline);
    result.stopped.sort_unstable_by_key(|tracee| places.get(&tracee.tid()).copied());
    result
}

/// Waits for one task's event stop, past whatever comes before it.
fn event_stop(tracee: Tracee<Running>, deadline: Instant) -> Result<Waited, Error> {
    let mut running = tracee;
    loop {
        let stopped = match running.wait(deadline)? {
            Waited::Stopped(stopped) => stopped,
            other => return Ok(other),
        };
        let tid = stopped.tid();
        let resumed = match stopped.stop() {
            Stop::Event { .. } => return Ok(Waited::Stopped(stopped)),
            Stop::Signal(signal) => stopped.cont(Some(signal)),
            _ => stopped.cont(None),
        };
        running = match resumed {
            // SIGKILL came first: its end is reported next.
            Err(Error::Gone { .. }) => Tracee::adopt(tid),
            other => other?,
        };
    }
}

//! Whether the tasks behind a frozen tree have run since they were captured.
//!
//! A frozen task's CPU clock stands still and moves across a thaw, so the clock of each process is compared with the one in
//! `live.json`, and cgroup.events must say `frozen 1`. Clocks only go forward: a check that holds at the end of a copy holds
//! for all of it. Kernel: `kernel/time/posix-cpu-timers.c`, `kernel/cgroup/freezer.c`, v6.18.

use crate::registry::Live;
use image_format::Pid;
use nix::errno::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Up to so many processes, every check looks at all of them.
const FEW: usize = 32;
/// With more, the others are looked at no more often than this; [`Witness::check_all`] always looks.
const INTERVAL: Duration = Duration::from_millis(50);

/// What the tasks behind a tree looked like when they were captured.
#[derive(Debug)]
pub(super) struct Witness {
    /// cgroup.events, re-read from its start.
    events: File,
    clocks: HashMap<Pid, Clock>,
    /// Once they ran, no later look makes it good.
    ran: AtomicBool,
    last: Mutex<Option<Instant>>,
}

#[derive(Clone, Copy, Debug)]
struct Clock {
    host_pid: nix::unistd::Pid,
    cpu_ns: u64,
}

impl Witness {
    pub(super) fn new(cgroup: &Path, live: &Live) -> std::io::Result<Self> {
        let clock = |p: &crate::registry::LiveProcess| Clock {
            host_pid: nix::unistd::Pid::from_raw(p.host_pid),
            cpu_ns: p.cpu_ns,
        };
        Ok(Witness {
            events: File::open(cgroup.join("cgroup.events"))?,
            clocks: live.processes.iter().map(|p| (p.pid, clock(p))).collect(),
            ran: AtomicBool::new(false),
            last: Mutex::new(None),
        })
    }

    /// The host's number of a process of the tree.
    pub(super) fn host_pid(&self, pid: Pid) -> Option<nix::unistd::Pid> {
        self.clocks.get(&pid).map(|clock| clock.host_pid)
    }

    /// Looks at the cgroup and at one process, and at the others now and then. ESTALE: they ran, or are gone.
    pub(super) fn check(&self, pid: Option<Pid>) -> Result<(), Errno> {
        let due = self.clocks.len() <= FEW
            || self.last.lock().is_ok_and(|last| last.is_none_or(|then| then.elapsed() > INTERVAL));
        if due {
            return self.check_all();
        }
        let stale = self.ran.load(Ordering::Relaxed)
            || !self.frozen()
            || pid.is_some_and(|pid| !self.clocks.get(&pid).is_some_and(Clock::stands));
        self.answer(stale)
    }

    /// Looks at the cgroup and at every process.
    pub(super) fn check_all(&self) -> Result<(), Errno> {
        let stale = self.ran.load(Ordering::Relaxed)
            || !self.frozen()
            || !self.clocks.values().all(Clock::stands)
            || !self.frozen();
        if let Ok(mut last) = self.last.lock() {
            *last = Some(Instant::now());
        }
        self.answer(stale)
    }

    fn answer(&self, stale: bool) -> Result<(), Errno> {
        if stale {
            self.ran.store(true, Ordering::Relaxed);
            return Err(Errno::ESTALE);
        }
        Ok(())
    }

    fn frozen(&self) -> bool {
        let mut text = [0; 128];
        let read = self.events.read_at(&mut text, 0).unwrap_or(0);
        text[..read].split(|&b| b == b'\n').any(|line| line == b"frozen 1")
    }
}

impl Clock {
    fn stands(&self) -> bool {
        crfs_sys::time::process_cpu_ns(self.host_pid).is_ok_and(|now| u64::try_from(now) == Ok(self.cpu_ns))
    }
}

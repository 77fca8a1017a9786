//! Whether the tasks behind a frozen tree have run since they were captured.
//!
//! A frozen task's CPU clock stands still and moves across a thaw, so the clock of each process is compared with the one in
//! `live.json`, and cgroup.events must say `frozen 1`. A signal (a timer's, say) also moves it, by waking the task inside the freezer
//! for a moment in which it runs nothing of its own: then the time for which the cgroup was not frozen must not have moved
//! (cgroup.stat.local). Where the kernel does not tell that time, such a task counts as having run. Clocks only go forward: a check that holds at the end of a copy holds
//! for all of it. Kernel: `kernel/time/posix-cpu-timers.c`, `kernel/cgroup/freezer.c`, v6.18.

use crate::registry::{Live, Thawed};
use image_format::Pid;
use nix::errno::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// cgroup.stat.local, and what it said at the capture.
    thawed: Option<(File, Thawed)>,
    /// Once they ran, no later look makes it good.
    ran: AtomicBool,
    last: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Clock {
    host_pid: nix::unistd::Pid,
    cpu_ns: AtomicU64,
}

impl Witness {
    pub(super) fn new(cgroup: &Path, live: &Live) -> std::io::Result<Self> {
        let clock = |p: &crate::registry::LiveProcess| Clock {
            host_pid: nix::unistd::Pid::from_raw(p.host_pid),
            cpu_ns: AtomicU64::new(p.cpu_ns),
        };
        Ok(Witness {
            events: File::open(cgroup.join("cgroup.events"))?,
            clocks: live.processes.iter().map(|p| (p.pid, clock(p))).collect(),
            thawed: live.thawed.and_then(|then| Some((File::open(cgroup.join("cgroup.stat.local")).ok()?, then))),
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
            || pid.is_some_and(|pid| !self.clocks.get(&pid).is_some_and(|clock| self.stands(clock)));
        self.answer(stale)
    }

    /// Looks at the cgroup and at every process.
    pub(super) fn check_all(&self) -> Result<(), Errno> {
        let stale = self.ran.load(Ordering::Relaxed)
            || !self.frozen()
            || !self.clocks.values().all(|clock| self.stands(clock))
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

    /// Whether a process has executed nothing of its own.
    fn stands(&self, clock: &Clock) -> bool {
        let now = crfs_sys::time::process_cpu_ns(clock.host_pid).ok().and_then(|now| u64::try_from(now).ok());
        let Some(now) = now else { return false };
        if now == clock.cpu_ns.load(Ordering::Relaxed) {
            return true;
        }
        let unbroken = self.thawed.as_ref().is_some_and(|(stat, then)| {
            let now = crate::freezer::thawed(stat).ok().flatten();
            now.is_some_and(|now| now.from_us <= then.to_us && then.from_us <= now.to_us)
        });
        if unbroken {
            clock.cpu_ns.store(now, Ordering::Relaxed);
        }
        unbroken
    }
}

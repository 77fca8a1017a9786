//! A container's cgroup: made, frozen, thawed, killed, listed and removed. What concerns its place in the hierarchy is in `directory`.
//!
//! Only cgroup v2 will do: a task frozen there can be seized, read and killed. Where it is mounted is found in
//! /proc/self/mountinfo and never assumed (on a hybrid host it is not /sys/fs/cgroup). Source: cgroups(7);
//! `Documentation/admin-guide/cgroup-v2.rst`, `kernel/cgroup/freezer.c`, v6.18.

mod directory;
mod stuck;

use crate::failure::{Doing, Failure, Kind};
use crate::registry::Thawed;
use crate::resource::subject;
use nix::errno::Errno;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often a wait looks again once yielding the processor was not enough.
const PAUSE: Duration = Duration::from_micros(50);
/// Looks that only yield: a freeze of sleeping tasks ends within a few of them.
const YIELDS: u32 = 64;
/// For a thaw to show in cgroup.events: the lock of all cgroups may be held for seconds by who makes, fills and removes them.
const THAW_DEADLINE: Duration = Duration::from_secs(10);
/// A cgroup, by its absolute path; it need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: PathBuf,
}

/// [`Cgroup::thawed`] from the open file, which can be read again and again.
///
/// # Errors
/// When it cannot be read.
pub fn thawed(stat: &fs::File) -> Result<Option<Thawed>, Failure> {
    let now =
        || crfs_sys::time::clock_ns(libc::CLOCK_MONOTONIC).map(|ns| ns / 1000).doing(|| "reading CLOCK_MONOTONIC");
    let mut best: Option<Thawed> = None;
    // The shortest of a few looks, since each may be interrupted.
    for _ in 0..5 {
        let mut text = [0; 128];
        let before = now()?;
        let read = stat.read_at(&mut text, 0).doing(|| "cgroup.stat.local: reading")?;
        let after = now()?;
        let text = String::from_utf8_lossy(&text[..read]);
        let frozen = text.lines().find_map(|line| line.strip_prefix("frozen_usec ")?.parse::<i64>().ok());
        let Some(frozen) = frozen else { return Ok(None) };
        // Both are rounded down to microseconds.
        let look = Thawed { from_us: before - frozen - 1, to_us: after - frozen + 1 };
        if best.is_none_or(|best| look.to_us - look.from_us < best.to_us - best.from_us) {
            best = Some(look);
        }
    }
    Ok(best)
}

impl Cgroup {
    /// A cgroup at a path that was recorded.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Cgroup { path: path.into() }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory is there.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Moves a process into it, with all its threads.
    ///
    /// # Errors
    /// `ESRCH` for a process that is gone.
    pub fn take(&self, pid: i32) -> std::io::Result<()> {
        fs::OpenOptions::new().write(true).open(self.path.join("cgroup.procs"))?.write_all(pid.to_string().as_bytes())
    }

    /// Its directory, for `CLONE_INTO_CGROUP`. Close-on-exec.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> Result<OwnedFd, Failure> {
        fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY)
            .open(&self.path)
            .map(OwnedFd::from)
            .doing(|| format!("cgroup {}: opening", self.path.display()))
    }

    /// Stops every task in it and below it.
    ///
    /// Waits by reading cgroup.events again: its notification is rate limited to one in 10 ms.
    ///
    /// # Errors
    /// [`Kind::Deadline`]: not all stopped in time. The cgroup has been thawed, and the text names the tasks that ran on.
    pub fn freeze(&self, deadline: Duration) -> Result<(), Failure> {
        let end = Instant::now() + deadline;
        self.write("cgroup.freeze", "1")?;
        let mut looks = 0;
        while !self.is_frozen()? {
            if Instant::now() >= end {
                let stuck = stuck::describe(&self.procs().unwrap_or_default());
                self.thaw()?;
                return Err(Failure::new(
                    Kind::Deadline,
                    format!(
                        "cgroup {}: not frozen within {} ms, so it runs on; {stuck}",
                        self.path.display(),
                        deadline.as_millis()
                    ),
                ));
            }
            pause(&mut looks);
        }
        Ok(())
    }

    /// Lets every task in it run again, and returns when the kernel says so: with cgroups below it that takes a moment.
    ///
    /// # Errors
    /// When the file cannot be written; [`Kind::Deadline`] where a frozen cgroup above it keeps it so.
    pub fn thaw(&self) -> Result<(), Failure> {
        let end = Instant::now() + THAW_DEADLINE;
        self.write("cgroup.freeze", "0")?;
        let mut looks = 0;
        while self.is_frozen()? {
            if Instant::now() >= end {
                return Err(Failure::new(
                    Kind::Deadline,
                    format!("cgroup {}: still frozen; is a cgroup above it frozen?", self.path.display()),
                ));
            }
            pause(&mut looks);
        }
        Ok(())
    }

    /// Whether its tasks are to be stopped, whether or not all are yet.
    ///
    /// # Errors
    /// When cgroup.freeze cannot be read.
    pub fn is_to_freeze(&self) -> Result<bool, Failure> {
        let path = self.path.join("cgroup.freeze");
        fs::read_to_string(&path).map(|text| text.trim() == "1").doing(|| format!("{}: reading", path.display()))
    }

    /// Whether all tasks in it and below it are stopped.
    ///
    /// # Errors
    /// When cgroup.events cannot be read.
    pub fn is_frozen(&self) -> Result<bool, Failure> {
        self.event("frozen")
    }

    /// How long it has been frozen since it was made, microseconds; None where the kernel does not tell (`frozen_usec` of
    /// cgroup.stat.local, since v6.18).
    #[must_use]
    pub fn frozen_us(&self) -> Option<u64> {
        let text = fs::read_to_string(self.path.join("cgroup.stat.local")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("frozen_usec ")?.parse().ok())
    }

    /// How long it has not been frozen; None where the kernel does not tell (`frozen_usec` of cgroup.stat.local, since v6.18).
    ///
    /// # Errors
    /// When cgroup.stat.local cannot be read.
    pub fn thawed(&self) -> Result<Option<Thawed>, Failure> {
        let path = self.path.join("cgroup.stat.local");
        match fs::File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            other => thawed(&other.doing(|| format!("{}: opening", path.display()))?),
        }
    }

    /// Whether there is a live task in it or below it. False where the cgroup does not exist.
    ///
    /// # Errors
    /// When cgroup.events cannot be read.
    pub fn is_populated(&self) -> Result<bool, Failure> {
        if self.exists() { self.event("populated") } else { Ok(false) }
    }

    /// Kills every task in it and below it, frozen or not, and waits until none is left.
    ///
    /// # Errors
    /// [`Kind::Deadline`] when some are still there.
    pub fn kill(&self, deadline: Duration) -> Result<(), Failure> {
        let end = Instant::now() + deadline;
        self.write_kill()?;
        let mut looks = 0;
        while self.is_populated()? {
            if Instant::now() >= end {
                let left = self.procs().unwrap_or_default();
                return Err(Failure::new(
                    Kind::Deadline,
                    format!(
                        "cgroup {}: killed, and {} ms later these processes are still there: {left:?}; \
                         they wait for the kernel, try again when the disk or server they wait for answers",
                        self.path.display(),
                        deadline.as_millis()
                    ),
                ));
            }
            pause(&mut looks);
        }
        Ok(())
    }

    /// Sends SIGKILL to every task in it and below it and does not wait: for a tracer, whose tracees are gone only when it has
    /// waited for each itself.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kill(&self) -> Result<(), Failure> {
        self.write("cgroup.kill", "1")?;
        if self.kill_leaderless()? {
            // What they cloned meanwhile.
            self.write("cgroup.kill", "1")?;
        }
        Ok(())
    }

    /// Kills the processes whose first thread has ended, which cgroup.kill passes over (seen on v6.18). Whether there were any.
    fn kill_leaderless(&self) -> Result<bool, Failure> {
        let mut any = false;
        for pid in self.procs()?.into_iter().filter(|pid| subject::is_gone(&format!("/proc/{pid}"))) {
            // Held before it is looked at, so that it is no other that has its id by now.
            let Ok(pidfd) = crfs_sys::pidfd::open(nix::unistd::Pid::from_raw(pid), false) else { continue };
            if Self::of_process(pid)?.is_some_and(|cgroup| cgroup.path.starts_with(&self.path)) {
                any |= crfs_sys::pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL).is_ok();
            }
        }
        Ok(any)
    }

    /// The processes in it and below it, as the host numbers them, sorted.
    ///
    /// # Errors
    /// When a cgroup.procs cannot be read. A cgroup that vanishes meanwhile is no error.
    pub fn procs(&self) -> Result<Vec<i32>, Failure> {
        self.members("cgroup.procs")
    }

    /// The threads in it and below it that have not ended, as the host numbers them, sorted.
    ///
    /// # Errors
    /// When a cgroup.threads cannot be read. A cgroup that vanishes meanwhile is no error.
    pub fn threads(&self) -> Result<Vec<i32>, Failure> {
        self.members("cgroup.threads")
    }

    fn members(&self, list: &str) -> Result<Vec<i32>, Failure> {
        let mut ids = Vec::new();
        for path in self.with_descendants()? {
            let file = path.join(list);
            match fs::read_to_string(&file) {
                Ok(text) => ids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok())),
                // In a threaded cgroup the processes are listed by the domain above it.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(error).doing(|| format!("{}: reading", file.display())),
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// Whether a process inside stays frozen when this one is thawed: a cgroup between them is frozen by itself.
    pub(crate) fn has_frozen_inside(&self, pid: i32) -> Result<bool, Failure> {
        let lies_in = Self::of_process(pid)?;
        let between = lies_in.iter().flat_map(|cgroup| cgroup.path.ancestors());
        for path in between.take_while(|path| *path != self.path && path.starts_with(&self.path)) {
            if Cgroup::at(path).is_to_freeze()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// It and all cgroups below it, each before those below it; empty where it does not exist.
    pub(crate) fn with_descendants(&self) -> Result<Vec<PathBuf>, Failure> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        let mut paths = vec![self.path.clone()];
        let mut next = 0;
        while let Some(path) = paths.get(next).cloned() {
            next += 1;
            let entries = match fs::read_dir(&path) {
                Err(error) if is_gone(&error) => continue,
                other => other.doing(|| format!("cgroup {}: listing", path.display()))?,
            };
            let below = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            paths.extend(below.map(|entry| entry.path()));
        }
        Ok(paths)
    }

    fn event(&self, key: &str) -> Result<bool, Failure> {
        let file = self.path.join("cgroup.events");
        let text = fs::read_to_string(&file).doing(|| format!("{}: reading", file.display()))?;
        Ok(text.lines().any(|line| line.split_once(' ') == Some((key, "1"))))
    }

    fn write(&self, name: &str, value: &str) -> Result<(), Failure> {
        let file = self.path.join(name);
        // Without O_CREAT: in a directory that is no cgroup a new file would look like success.
        let write =
            || -> std::io::Result<()> { fs::OpenOptions::new().write(true).open(&file)?.write_all(value.as_bytes()) };
        write().doing(|| format!("{}: writing {value}", file.display()))
    }
}

/// A cgroup removed by somebody else: the directory is gone, or its files answer ENODEV.
fn is_gone(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

fn pause(looks: &mut u32) {
    *looks += 1;
    if *looks <= YIELDS {
        std::thread::yield_now();
    } else {
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests;

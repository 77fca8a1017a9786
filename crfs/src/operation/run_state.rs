//! What is true of a container now: what was recorded, held against what its cgroup says.

use crate::failure::{Doing, Failure};
use crate::freezer::Cgroup;
use crate::registry::{Container, Record, Registry, State};
use nix::fcntl::Flock;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The state of a container, and its record as written. Takes no lock.
///
/// The cgroup has the last word: a container without tasks is exited, and one that somebody else thawed is running. One that
/// somebody else froze is still running: it has no tree.
///
/// # Errors
/// [`crate::failure::Kind::NotFound`], or when the cgroup cannot be read.
pub fn state(registry: &Registry, name: &str) -> Result<(State, Record), Failure> {
    let container = registry.container(name)?;
    // Whoever builds holds the lock. If nobody does, the one who did is dead, and so is what it was building.
    truth(container.existing()?, || container.lock(Duration::ZERO).is_err())
}

/// As [`state`], for the one who holds the container's lock.
pub(super) fn state_locked(container: &Container) -> Result<(State, Record), Failure> {
    truth(container.existing()?, || false)
}

fn truth(mut record: Record, is_building: impl FnOnce() -> bool) -> Result<(State, Record), Failure> {
    let state = match record.state {
        State::Frozen | State::Running => {
            let cgroup = Cgroup::at(&record.cgroup);
            if !cgroup.is_populated()? {
                record.exit_status = record.exit_status.or_else(|| exit_status(&record));
                State::Exited
            } else if record.state == State::Frozen && cgroup.is_frozen()? {
                State::Frozen
            } else {
                State::Running
            }
        }
        State::Building if !is_building() => State::Failed,
        recorded => recorded,
    };
    Ok((state, record))
}

/// As [`state`], None where there is no such container.
pub(crate) fn state_if_any(registry: &Registry, container: &Container) -> Result<Option<State>, Failure> {
    match container.record()? {
        None => Ok(None),
        Some(_) => state(registry, container.name()).map(|(state, _)| Some(state)),
    }
}

/// Takes the container's lock, and makes sure that it is still the one others will take: a container that was removed and made
/// again while we waited has another.
pub(crate) fn hold(container: &Container, patience: Duration) -> Result<Flock<File>, Failure> {
    let end = Instant::now() + patience;
    loop {
        let lock = container.lock(end.saturating_duration_since(Instant::now()))?;
        let path = container.dir().join("lock");
        let held = lock.metadata().doing(|| format!("{}: looking at it", path.display()))?;
        match fs::metadata(&path) {
            Ok(now) if now.ino() == held.ino() && now.dev() == held.dev() => return Ok(lock),
            _ => {}
        }
    }
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// When a process started, in clock ticks after boot: with its pid it names a process for good. None when there is none.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    stat_field(pid, 22)
}

/// The wait(2) status of the first process while it is a zombie.
fn exit_status(record: &Record) -> Option<i32> {
    let init = record.init?;
    (start_time(init.pid)? == init.start_time).then(|| stat_field(init.pid, 52))?
}

/// The wait(2) status of a process that has ended and was not reaped.
pub(crate) fn exit_code(pid: i32) -> Option<i32> {
    (stat_field::<char>(pid, 3)? == 'Z').then(|| stat_field(pid, 52))?
}

/// A field of /proc/PID/stat, numbered as in proc_pid_stat(5), after the name (which may hold blanks).
fn stat_field<T: std::str::FromStr>(pid: i32, number: usize) -> Option<T> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // What follows the name is field 3.
    text.rsplit_once(") ")?.1.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

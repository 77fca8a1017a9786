//! Notices when the first process of a container ends, and records its exit status, which nobody could tell later.
//!
//! A pidfd becomes readable when its process ends and knows the status once the process was reaped (6.15); before that the
//! zombie's /proc/PID/stat has it. Containers are started by other programs, so the registry is looked through now and then for
//! new ones. A container that ended sooner than that has no exit status.

use crate::operation;
use crate::registry::{Init, Registry};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks through the registry, in milliseconds.
const INTERVAL_MS: u16 = 500;
/// A zombie whose parent does not reap it.
const PAUSE: Duration = Duration::from_millis(20);
/// How long an operation on the container is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A thread that watches first processes. Dropping it stops it.
#[derive(Debug)]
pub struct Monitor {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Watched {
    pidfd: OwnedFd,
    init: Init,
}

impl Monitor {
    /// Starts the thread. `look` is called once an interval too, for whatever else must notice what others did.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(registry: Registry, look: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("crfs-monitor".to_owned())
            .spawn(move || watch(&registry, &look, &stopped))?;
        Ok(Monitor { stop, thread: Some(thread) })
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within an interval; that it panicked was told when it did.
            let _ = thread.join();
        }
    }
}

fn watch(registry: &Registry, look: &dyn Fn(), stop: &AtomicBool) {
    let mut watched: HashMap<String, Watched> = HashMap::new();
    while !stop.load(Ordering::Relaxed) {
        refresh(registry, &mut watched);
        look();
        let names: Vec<String> = watched.keys().cloned().collect();
        let mut fds: Vec<PollFd<'_>> = names
            .iter()
            .filter_map(|name| watched.get(name))
            .map(|watched| PollFd::new(watched.pidfd.as_fd(), PollFlags::POLLIN))
            .collect();
        if poll(&mut fds, PollTimeout::from(INTERVAL_MS)).is_err() {
            std::thread::sleep(Duration::from_millis(INTERVAL_MS.into()));
            continue;
        }
        let ended: Vec<String> = names
            .into_iter()
            .zip(&fds)
            .filter(|(_, fd)| fd.revents().is_some_and(|events| !events.is_empty()))
            .map(|(name, _)| name)
            .collect();
        for name in ended {
            if watched.get(&name).is_some_and(|watched| record(registry, &name, watched)) {
                watched.remove(&name);
            } else {
                std::thread::sleep(PAUSE);
            }
        }
    }
}

/// Watches what is new and forgets what is gone.
fn refresh(registry: &Registry, watched: &mut HashMap<String, Watched>) {
    let mut current = HashMap::new();
    for name in registry.names().unwrap_or_default() {
        let record = registry.container(&name).and_then(|container| container.record());
        let Ok(Some(record)) = record else { continue };
        if let (Some(init), None) = (record.init, record.exit_status) {
            current.insert(name, init);
        }
    }
    watched.retain(|name, watched| current.get(name) == Some(&watched.init));
    for (name, init) in current {
        if watched.contains_key(&name) {
            continue;
        }
        let Ok(pidfd) = crfs_sys::pidfd::open(Pid::from_raw(init.pid), false) else { continue };
        // After it was opened: the number may have been another process's by then.
        if operation::start_time(init.pid) == Some(init.start_time) {
            watched.insert(name, Watched { pidfd, init });
        }
    }
}

/// Records the status of a process that ended; false while nobody can tell it yet.
fn record(registry: &Registry, name: &str, watched: &Watched) -> bool {
    let reaped = || crfs_sys::pidfd::info(watched.pidfd.as_fd()).ok().and_then(|info| info.exit_status);
    let zombie = || operation::state(registry, name).ok().and_then(|(_, record)| record.exit_status);
    let gone = || operation::start_time(watched.init.pid) != Some(watched.init.start_time);
    let Some(status) = reaped().or_else(zombie).or_else(|| if gone() { reaped() } else { None }) else {
        // A kernel that does not tell of a process that was reaped: there is nothing to wait for.
        return gone() && reaped().is_none();
    };
    let write = || {
        let container = registry.container(name)?;
        let _lock = operation::hold(&container, PATIENCE)?;
        let mut record = container.existing()?;
        if record.init == Some(watched.init) && record.exit_status.is_none() {
            record.exit_status = Some(status);
            container.write_record(&record)?;
        }
        Ok::<(), crate::failure::Failure>(())
    };
    match write() {
        Ok(()) => true,
        Err(failure) => {
            tracing::debug!("{name}: exit status not recorded: {failure}");
            false
        }
    }
}

//! `.ctl/events`: a read that waits until something about a container has changed.
//!
//! The kernel lets nobody who waits for an answer of a FUSE server be killed or frozen, so a read is answered EINTR after
//! [`PATIENCE`] at the latest: coreutils, shells and interpreters then read again, after they had the chance to die or to stop.

use super::Operations;
use crate::failure::Failure;
use crate::registry::{Container, State, Status};
use image_format::render_lines;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The longest time a read waits: well below a freeze's deadline.
const PATIENCE: Duration = Duration::from_millis(400);
/// Between two looks while somebody waits.
const INTERVAL: Duration = Duration::from_millis(10);

/// A line of `.ctl/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// The state now.
    pub state: State,
    /// The operation that ended last.
    pub operation: String,
    /// When it ended, in seconds since the epoch.
    pub time: u64,
    /// Why it failed.
    pub failure: Option<Failure>,
}

/// One open `.ctl/events`: shows what changes from when it was opened.
#[derive(Debug)]
pub(super) struct Watcher {
    container: Container,
    last: Mutex<Option<(State, Status)>>,
}

impl Watcher {
    pub(super) fn new(operations: &dyn Operations, container: Container) -> Self {
        let last = look(operations, &container).ok();
        Watcher { container, last: Mutex::new(last) }
    }

    /// The next change as a line. EINTR: none yet. Nothing: the container is gone.
    pub(super) fn wait(&self, operations: &dyn Operations, closed: &AtomicBool) -> Result<Vec<u8>, Errno> {
        let end = Instant::now() + PATIENCE;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let Ok(now) = look(operations, &self.container) else { return Ok(Vec::new()) };
            if last.as_ref() != Some(&now) {
                let (state, status) = now.clone();
                *last = Some(now);
                let event = Event { state, operation: status.operation, time: status.time, failure: status.failure };
                let mut line = render_lines(&[event]);
                line.truncate(line.iter().position(|&b| b == b'\n').map_or(line.len(), |at| at + 1));
                return Ok(line);
            }
            if closed.load(Ordering::Relaxed) || Instant::now() >= end {
                return Err(Errno::EINTR);
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

fn look(operations: &dyn Operations, container: &Container) -> Result<(State, Status), Failure> {
    let (state, _) = operations.state(container.name())?;
    Ok((state, container.status()?))
}

//! What the tree asks of the rest of the library. A trait, so that the tree is tested without tasks, cgroups and workers.

use crate::failure::Failure;
use crate::operation::{self, FreezeOptions};
use crate::registry::{Record, Registry, State, Status};
use image_format::Blocker;
use std::time::Duration;

/// How long another operation is waited for before a name is said to be busy. Short: the file operation stands meanwhile.
const PATIENCE: Duration = Duration::from_millis(500);

/// The operations behind the files. Each takes the container's lock, runs what it needs and leaves `container.json` and
/// `status.json` behind; all but `state` may take long.
pub trait Operations: Send + Sync + 'static {
    /// The state now, which is the record's and the cgroup's, and the record.
    ///
    /// # Errors
    /// When there is no such container, or the record cannot be read.
    fn state(&self, name: &str) -> Result<(State, Record), Failure>;

    /// Freezes and captures.
    ///
    /// # Errors
    /// As [`operation::freeze`].
    fn freeze(&self, name: &str, options: FreezeOptions) -> Result<Status, Failure>;

    /// Lets it run.
    ///
    /// # Errors
    /// As [`operation::thaw`].
    fn thaw(&self, name: &str) -> Result<Status, Failure>;

    /// What could not be checkpointed now.
    ///
    /// # Errors
    /// As [`operation::survey`].
    fn survey(&self, name: &str) -> Result<Vec<Blocker>, Failure>;

    /// Builds it from what was staged.
    ///
    /// # Errors
    /// As [`operation::build`].
    fn build(&self, name: &str) -> Result<Status, Failure>;

    /// Removes a container that has no processes.
    ///
    /// # Errors
    /// As [`operation::remove`].
    fn remove(&self, name: &str) -> Result<(), Failure>;

    /// Makes a container that takes files: a new one, or an exited one whose log is kept.
    ///
    /// # Errors
    /// As [`operation::incoming`].
    fn incoming(&self, name: &str) -> Result<Record, Failure>;
}

/// The operations of this host.
#[derive(Clone, Debug)]
pub struct Host(pub Registry);

impl Operations for Host {
    fn state(&self, name: &str) -> Result<(State, Record), Failure> {
        operation::state(&self.0, name)
    }
    fn freeze(&self, name: &str, options: FreezeOptions) -> Result<Status, Failure> {
        operation::freeze(&self.0, name, options)
    }
    fn thaw(&self, name: &str) -> Result<Status, Failure> {
        operation::thaw(&self.0, name)
    }
    fn survey(&self, name: &str) -> Result<Vec<Blocker>, Failure> {
        operation::survey(&self.0, name)
    }
    fn build(&self, name: &str) -> Result<Status, Failure> {
        operation::build(&self.0, name)
    }
    fn remove(&self, name: &str) -> Result<(), Failure> {
        operation::remove(&self.0, name)
    }
    fn incoming(&self, name: &str) -> Result<Record, Failure> {
        operation::incoming(&self.0, name, PATIENCE)
    }
}

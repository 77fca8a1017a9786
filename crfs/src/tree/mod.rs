//! The tree under the mount point, without FUSE: names, attributes, contents, and what a copy in sets off.
//!
//! ```text
//! /                  one directory a container; `.ctl/{status,features}` by name only
//! /NAME              incoming, building, failed: what was staged so far, may be written
//!                    frozen: the image, read-only; running: `blockers`; exited: nothing, takes files
//! /NAME/.ctl         by name only: `state`, `status`, `events`
//! ```
//! Every method answers with the errno that the file operation gets. Those that may take long return a [`Step`], which the
//! adapter runs off its loop. What is refused, and with which errno:
//!
//! | errno | when |
//! |---|---|
//! | EINVAL | a name that a container or an image cannot have; a malformed command; an image that cannot be built (reason in `.ctl/status`) |
//! | EROFS | making, writing, cutting or renaming a file of a frozen container |
//! | EPERM | removing a live container or files of one; links and device files; renaming a directory |
//! | EBUSY | writing while the container is being built |
//! | ESTALE | the tasks ran since they were captured, or the node belongs to an earlier freeze |
//! | EINTR | reading `.ctl/events`: nothing happened yet, read again |
//!
//! Mode, owner and times may be set on a frozen tree: cp -a and rsync do so after the container was built. They are kept in
//! memory only, for as long as the tree stands.

mod attr;
mod cache;
mod change;
mod control;
mod events;
mod export;
mod frozen;
mod handle;
mod id;
mod incoming;
mod io;
mod look;
mod operations;
mod outside;
mod pages;
mod slots;
mod staging;
mod sums;
#[cfg(test)]
pub(crate) mod tests;
mod witness;

pub use attr::{Attr, BLOCK_SIZE, Changes, Entry};
pub use cache::Buffer;
pub use control::Refusal;
pub use events::Event;
pub use export::FrozenTree;
pub use handle::{Content, Data, HandleId, Opened};
pub use id::NodeId;
pub use look::Listed;
pub use operations::{Host, Operations};

use crate::registry::Registry;
use cache::ChunkCache;
use control::Refusals;
use handle::Handles;
use nix::errno::Errno;
use slots::Slots;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// The answer to a request, or the work that leads to it.
#[must_use]
pub enum Step<T> {
    /// It is there.
    Now(Result<T, Errno>),
    /// It takes a while: not in the loop that serves the mount.
    Later(Box<dyn FnOnce() -> Result<T, Errno> + Send>),
}

impl<T> Step<T> {
    fn later(work: impl FnOnce() -> Result<T, Errno> + Send + 'static) -> Self {
        Step::Later(Box::new(work))
    }

    /// Does the work here and now.
    ///
    /// # Errors
    /// The operation's.
    pub fn finish(self) -> Result<T, Errno> {
        match self {
            Step::Now(result) => result,
            Step::Later(work) => work(),
        }
    }
}

impl<T> From<Result<T, Errno>> for Step<T> {
    fn from(result: Result<T, Errno>) -> Self {
        Step::Now(result)
    }
}

/// The tree of one registry.
pub struct Tree(Arc<Inner>);

/// Shared with work that goes on off the loop.
struct Inner {
    registry: Registry,
    operations: Box<dyn Operations>,
    slots: Slots,
    handles: Handles,
    cache: ChunkCache,
    refusals: Refusals,
    closed: AtomicBool,
    started: SystemTime,
}

impl Tree {
    /// The tree of a registry; `operations` is [`Host`] but for tests.
    pub fn new(registry: Registry, operations: impl Operations) -> Self {
        Tree(Arc::new(Inner {
            slots: Slots::new(registry.clone()),
            registry,
            operations: Box::new(operations),
            handles: Handles::default(),
            cache: ChunkCache::new(),
            refusals: Refusals::default(),
            closed: AtomicBool::new(false),
            started: SystemTime::now(),
        }))
    }

    /// Answers whoever waits: the mount is going away.
    pub fn close(&self) {
        self.0.closed.store(true, Ordering::Relaxed);
        self.0.cache.close();
    }

    /// Lets go of what belongs to containers that are gone or no longer frozen, though nobody asks for them.
    pub fn look_again(&self) {
        self.0.slots.look_again(&*self.0.operations);
    }

    /// What statfs(2) tells: of the file system that takes page contents.
    ///
    /// # Errors
    /// The system's.
    pub fn statfs(&self) -> Result<nix::sys::statvfs::Statvfs, Errno> {
        let staging = self.0.registry.staging_dir();
        // It is made with the first copy in.
        let existing = staging.ancestors().find(|path| path.exists()).unwrap_or(staging);
        nix::sys::statvfs::statvfs(existing)
    }
}

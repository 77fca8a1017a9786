//! The one way an operation fails, whichever process it failed in, and the one mapping to errno.

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

/// What sort of failure it is: decides the errno that a file operation answers and the exit code of `crctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The container holds something that cannot be carried; every obstacle is in the report.
    Blocked,
    /// The image is incomplete, malformed or contradicts itself.
    BadImage,
    /// The image is sound and this host cannot run it (kernel, CPU, a file that changed, an id in use).
    Incompatible,
    /// The container is in a state that does not allow the operation.
    WrongState,
    /// No such container.
    NotFound,
    /// The name is in use.
    Exists,
    /// The name cannot be a container's.
    BadName,
    /// Another operation on the container is under way.
    Busy,
    /// Something did not happen in time.
    Deadline,
    /// The tasks ran behind our back: what was captured is no longer so.
    Stale,
    /// No room for what must be written.
    NoSpace,
    /// The machine lacks something (cgroup v2, BTF, /dev/fuse, a privilege).
    Unsupported,
    /// A signal ended it: `^C`. Everything is as before.
    Interrupted,
    /// Anything else the system refused.
    System,
}

impl Kind {
    /// The errno a file operation answers.
    #[must_use]
    pub fn errno(self) -> Errno {
        match self {
            Kind::Blocked => Errno::EBUSY,
            Kind::BadImage => Errno::EINVAL,
            Kind::Incompatible => Errno::ENOEXEC,
            Kind::WrongState => Errno::EPERM,
            Kind::NotFound => Errno::ENOENT,
            Kind::Exists => Errno::EEXIST,
            Kind::BadName => Errno::EINVAL,
            Kind::Busy => Errno::EAGAIN,
            Kind::Deadline => Errno::ETIMEDOUT,
            Kind::Stale => Errno::ESTALE,
            Kind::NoSpace => Errno::ENOSPC,
            Kind::Unsupported => Errno::EOPNOTSUPP,
            Kind::Interrupted => Errno::EINTR,
            Kind::System => Errno::EIO,
        }
    }
}

/// Why an operation failed: the sort, and the chain of reasons from what was being done down to what the system said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", chain.join(": "))]
pub struct Failure {
    /// The sort.
    pub kind: Kind,
    /// Outermost first. Each names the object it is about; the remedy, where there is one, ends the last.
    pub chain: Vec<String>,
}

impl Failure {
    /// A failure with one reason.
    pub fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Failure { kind, chain: vec![reason.into()] }
    }

    /// A failure of the system, from any error with its sources.
    #[must_use]
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        let mut chain = vec![error.to_string()];
        let mut source = error.source();
        while let Some(cause) = source {
            chain.push(cause.to_string());
            source = cause.source();
        }
        Failure { kind: Kind::System, chain }
    }

    /// The same failure with what was being done in front.
    #[must_use]
    pub fn within(mut self, doing: impl Into<String>) -> Self {
        self.chain.insert(0, doing.into());
        self
    }
}

/// Says what was being done when something failed.
pub trait Doing<T> {
    /// Turns the error into a [`Failure`] with `doing` in front. A full disk is told apart.
    ///
    /// # Errors
    /// The error it was given.
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, Failure>;
}

impl<T, E: std::error::Error + 'static> Doing<T> for Result<T, E> {
    fn doing<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|error| {
            let any: &(dyn std::error::Error + 'static) = &error;
            // As it is, or as those have it who read.
            let read = any.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            let failure = any.downcast_ref::<Failure>().or_else(|| read.and_then(|error| error.downcast_ref()));
            if let Some(failure) = failure {
                return failure.clone().within(doing());
            }
            let no_space = any.downcast_ref::<std::io::Error>().is_some_and(|e| e.raw_os_error() == Some(libc::ENOSPC))
                || any.downcast_ref::<Errno>() == Some(&Errno::ENOSPC);
            let mut failure = Failure::from_error(any).within(doing());
            if no_space {
                failure.kind = Kind::NoSpace;
            }
            failure
        })
    }
}

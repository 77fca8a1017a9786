//! A frozen container as a tree: what the mount shows, without the mount.

use super::{Entry, Source};
use crate::failure::{Failure, Kind};
use crate::operation;
use crate::registry::{Registry, State};
use crate::tree::FrozenTree;

/// The tree of one freeze. Reading it fails with [`Kind::Stale`] once the container has run.
#[derive(Debug)]
pub struct Frozen(FrozenTree);

impl Frozen {
    /// The tree of a container that is frozen.
    ///
    /// # Errors
    /// [`Kind::NotFound`]; [`Kind::WrongState`] unless it is frozen for a checkpoint.
    pub fn open(registry: &Registry, name: &str) -> Result<Self, Failure> {
        let (state, record) = operation::state(registry, name)?;
        if state != State::Frozen {
            let reason = format!("{name}: is {state}, and only a frozen container has a tree; `crctl freeze {name}`");
            return Err(Failure::new(Kind::WrongState, reason));
        }
        if record.inspect {
            let reason = format!("{name}: is frozen for looking only, because of what stands in its `blockers`");
            return Err(Failure::new(Kind::Blocked, reason));
        }
        Ok(Frozen(FrozenTree::open(&registry.container(name)?, &record)?))
    }
}

impl Source for Frozen {
    fn entries(&self) -> Result<Vec<Entry>, Failure> {
        Ok(self.0.entries().map(|(path, size)| Entry { path: path.to_owned(), size }).collect())
    }

    fn size(&self, path: &str) -> Option<u64> {
        self.0.size(path)
    }

    fn read_at(&self, path: &str, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        self.0.read_at(path, offset, buffer)
    }
}

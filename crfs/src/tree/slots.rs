//! The containers as they are shown: for each, its state, and the files that go with that state.
//!
//! Others change containers too (`crctl`, and whoever thaws a cgroup by hand), so nothing is believed for longer than one
//! request: `container.json` is looked at each time, and read again when it was replaced.

use super::Operations;
use super::frozen::{Frozen, Inherited};
use super::id::mask;
use super::incoming::Incoming;
use crate::failure::{Failure, Kind};
use crate::registry::{Record, Registry, State};
use nix::errno::Errno;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Every container that was looked at.
#[derive(Debug)]
pub(super) struct Slots {
    registry: Registry,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// A name keeps its number as long as the server lives.
    serials: HashMap<String, u64>,
    names: HashMap<u64, String>,
    slots: HashMap<String, Slot>,
    generations: HashMap<u64, String>,
}

#[derive(Debug)]
struct Slot {
    signature: Signature,
    /// What the record said when what is shown was loaded.
    generation: u64,
    view: View,
}

/// A container at one moment.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) serial: u64,
    pub(super) state: State,
    pub(super) record: Arc<Record>,
    pub(super) shown: Shown,
}

/// The files that go with a state.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    /// Running or exited.
    Nothing,
    Frozen(Arc<Frozen>),
    /// Incoming, building or failed.
    Incoming(Arc<Incoming>),
}

/// Tells whether a file was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature {
    inode: u64,
    modified: (i64, i64),
}

impl Signature {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Signature { inode: metadata.ino(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

impl Slots {
    pub(super) fn new(registry: Registry) -> Self {
        Slots { registry, inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name behind a container's serial.
    pub(super) fn name_of(&self, serial: u64) -> Result<String, Errno> {
        self.lock().names.get(&serial).cloned().ok_or(Errno::ESTALE)
    }

    /// The container whose image has this generation. ESTALE: it is no longer that image.
    pub(super) fn by_generation(&self, operations: &dyn Operations, generation: u64) -> Result<(String, View), Errno> {
        let name = self.lock().generations.get(&mask(generation)).cloned().ok_or(Errno::ESTALE)?;
        let view =
            self.view(operations, &name).map_err(|errno| if errno == Errno::ENOENT { Errno::ESTALE } else { errno })?;
        let shown = match &view.shown {
            Shown::Nothing => None,
            Shown::Frozen(frozen) => Some(frozen.generation),
            Shown::Incoming(incoming) => Some(incoming.generation),
        };
        if shown == Some(mask(generation)) { Ok((name, view)) } else { Err(Errno::ESTALE) }
    }

    /// Looks at every container that was looked at before, so that nothing of one that is gone is held any longer.
    pub(super) fn look_again(&self, operations: &dyn Operations) {
        let names: Vec<String> = self.lock().slots.keys().cloned().collect();
        for name in names {
            // What cannot be looked at now is told to whoever asks for it.
            let _ = self.view(operations, &name);
        }
    }

    /// A container as it is now. ENOENT: there is none of the name.
    pub(super) fn view(&self, operations: &dyn Operations, name: &str) -> Result<View, Errno> {
        let container = self.registry.container(name).map_err(|_| Errno::ENOENT)?;
        let signature = Signature::of(&container.dir().join("container.json"));
        let mut inner = self.lock();
        let Some(signature) = signature else {
            inner.forget(name);
            return Err(Errno::ENOENT);
        };
        if let Some(slot) = inner.slots.get(name).filter(|slot| slot.signature == signature)
            && let Shown::Frozen(frozen) = &slot.view.shown
            && frozen.witness.check(None).is_ok()
        {
            return Ok(slot.view.clone());
        }
        let (state, record) = match operations.state(name) {
            Ok(now) => now,
            Err(failure) if failure.kind == Kind::NotFound => {
                inner.forget(name);
                return Err(Errno::ENOENT);
            }
            Err(failure) => return Err(told(&failure)),
        };
        let before = inner.slots.get(name).map(|slot| (slot.generation, slot.view.shown.clone()));
        let shown = self.shown(&container, state, &record, before)?;
        let serial = inner.serial(name);
        let view = View { serial, state, record: Arc::new(record), shown };
        inner.show(name, Slot { signature, generation: view.record.generation, view: view.clone() });
        Ok(view)
    }

    fn shown(
        &self,
        container: &crate::registry::Container,
        state: State,
        record: &Record,
        before: Option<(u64, Shown)>,
    ) -> Result<Shown, Errno> {
        match (state, before) {
            (State::Running | State::Exited, _) => Ok(Shown::Nothing),
            // The record is written before the operation that built it has returned here.
            (State::Frozen, Some((_, Shown::Incoming(incoming)))) if incoming.is_building() => {
                Ok(Shown::Incoming(incoming))
            }
            (State::Frozen, Some((_, Shown::Incoming(incoming)))) => {
                let frozen = Frozen::load(container, record, incoming.generation, incoming.bequeath());
                Ok(Shown::Frozen(Arc::new(frozen.map_err(|failure| told(&failure))?)))
            }
            (State::Frozen, Some((generation, Shown::Frozen(frozen))))
                if generation == record.generation && frozen.inspect == record.inspect =>
            {
                Ok(Shown::Frozen(frozen))
            }
            (State::Frozen, _) => {
                let frozen = Frozen::load(container, record, record.generation, Inherited::default());
                Ok(Shown::Frozen(Arc::new(frozen.map_err(|failure| told(&failure))?)))
            }
            (State::Incoming | State::Failed | State::Building, Some((generation, Shown::Incoming(incoming))))
                if generation == record.generation =>
            {
                Ok(Shown::Incoming(incoming))
            }
            (State::Incoming | State::Failed | State::Building, _) => {
                let incoming = Incoming::load(&self.registry, container, record);
                Ok(Shown::Incoming(Arc::new(incoming.map_err(|failure| told(&failure))?)))
            }
        }
    }
}

/// A failure that a file operation can only answer with its errno. The reason goes to the server's log.
pub(super) fn told(failure: &Failure) -> Errno {
    tracing::warn!("{failure}");
    failure.kind.errno()
}

impl Inner {
    fn serial(&mut self, name: &str) -> u64 {
        if let Some(&serial) = self.serials.get(name) {
            return serial;
        }
        let serial = self.serials.len() as u64 + 1;
        self.serials.insert(name.to_owned(), serial);
        self.names.insert(serial, name.to_owned());
        serial
    }

    fn show(&mut self, name: &str, slot: Slot) {
        self.forget(name);
        let generation = match &slot.view.shown {
            Shown::Nothing => None,
            Shown::Frozen(frozen) => Some(frozen.generation),
            Shown::Incoming(incoming) => Some(incoming.generation),
        };
        if let Some(generation) = generation {
            self.generations.insert(generation, name.to_owned());
        }
        self.slots.insert(name.to_owned(), slot);
    }

    fn forget(&mut self, name: &str) {
        if self.slots.remove(name).is_some() {
            self.generations.retain(|_, holder| holder != name);
        }
    }
}

//! Names and attributes.

use super::attr::{Attr, Entry};
use super::frozen::{BLOCKERS, Content, TOP};
use super::handle::{Handle, HandleId, Opened};
use super::id::{Fixed, ImageNode, NodeId, Place};
use super::slots::{Shown, View};
use super::{Inner, Tree, incoming};
use crate::registry::State;
use nix::errno::Errno;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// For how long the kernel may believe what lies deeper than a container's own directory in a frozen tree. It reaches that only
/// through names that it asks for anew each time.
const LONG: Duration = Duration::from_secs(3600);
const NONE: Duration = Duration::ZERO;

/// The hidden directory's name.
const CTL: &str = ".ctl";
const STATUS: &str = "status";
const FEATURES: &str = "features";
const STATE: &str = "state";
const EVENTS: &str = "events";

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name.
    pub name: String,
    /// Its node.
    pub node: NodeId,
    /// A directory.
    pub directory: bool,
}

/// What an id stands for at this moment.
pub(super) enum Found {
    Root,
    RootCtl,
    RootStatus,
    RootFeatures,
    Fixed(String, View, Fixed),
    Image(String, View, ImageNode),
}

impl Tree {
    /// Finds a name in a directory.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ESTALE.
    pub fn lookup(&self, parent: NodeId, name: &str) -> Result<Entry, Errno> {
        self.0.lookup(parent, name)
    }

    /// Attributes of a node.
    ///
    /// # Errors
    /// ESTALE.
    pub fn attr(&self, node: NodeId) -> Result<Entry, Errno> {
        self.0.attr(node)
    }

    /// Opens a directory: its names are those of this moment.
    ///
    /// # Errors
    /// ENOTDIR, ESTALE.
    pub fn open_directory(&self, node: NodeId) -> Result<Opened, Errno> {
        let listed = self.0.list(node)?;
        let handle = self.0.handles.add(Handle::Directory(Arc::new(listed)));
        Ok(Opened { handle, content: super::handle::Content::Direct, flush: false })
    }

    /// The names of an open directory, sorted.
    ///
    /// # Errors
    /// EBADF, ENOTDIR.
    pub fn entries(&self, handle: HandleId) -> Result<Arc<Vec<Listed>>, Errno> {
        match self.0.handles.get(handle)? {
            Handle::Directory(listed) => Ok(listed),
            _ => Err(Errno::ENOTDIR),
        }
    }
}

fn listed(name: &str, place: Place, directory: bool) -> Listed {
    Listed { name: name.to_owned(), node: place.into(), directory }
}

impl View {
    fn place(&self, what: Fixed) -> Place {
        Place::Fixed { serial: self.serial, what }
    }
}

impl Inner {
    pub(super) fn find(&self, node: NodeId) -> Result<Found, Errno> {
        Ok(match node.place().ok_or(Errno::ESTALE)? {
            Place::Root => Found::Root,
            Place::RootCtl => Found::RootCtl,
            Place::RootStatus => Found::RootStatus,
            Place::RootFeatures => Found::RootFeatures,
            Place::Fixed { serial, what } => {
                let name = self.slots.name_of(serial)?;
                let view =
                    self.view(&name).map_err(|errno| if errno == Errno::ENOENT { Errno::ESTALE } else { errno })?;
                Found::Fixed(name, view, what)
            }
            Place::Image(image) => {
                let (name, view) = self.slots.by_generation(self.operations.as_ref(), image.generation)?;
                Found::Image(name, view, image)
            }
        })
    }

    pub(super) fn view(&self, name: &str) -> Result<View, Errno> {
        self.slots.view(self.operations.as_ref(), name)
    }

    pub(super) fn lookup(&self, parent: NodeId, name: &str) -> Result<Entry, Errno> {
        let node = match (self.find(parent)?, name) {
            (Found::Root, CTL) => Place::RootCtl,
            (Found::Root, _) => {
                let view = self.view(name)?;
                return self.entry(Place::Fixed { serial: view.serial, what: Fixed::Top }.into(), NONE);
            }
            (Found::RootCtl, STATUS) => Place::RootStatus,
            (Found::RootCtl, FEATURES) => Place::RootFeatures,
            (Found::Fixed(_, view, Fixed::Top), CTL) => view.place(Fixed::Ctl),
            (Found::Fixed(_, view, Fixed::Top), BLOCKERS) if view.state == State::Running => {
                view.place(Fixed::Blockers)
            }
            (Found::Fixed(_, view, Fixed::Ctl), STATE) => view.place(Fixed::State),
            (Found::Fixed(_, view, Fixed::Ctl), STATUS) => view.place(Fixed::Status),
            (Found::Fixed(_, view, Fixed::Ctl), EVENTS) => view.place(Fixed::Events),
            (Found::Fixed(_, view, Fixed::Top), _) => child(&view, TOP, false, name)?,
            (Found::Image(_, view, image), _) => child(&view, image.index, image.alias, name)?,
            (Found::RootCtl | Found::Fixed(_, _, Fixed::Ctl), _) => return Err(Errno::ENOENT),
            _ => return Err(Errno::ENOTDIR),
        };
        self.attr(node.into())
    }

    fn entry(&self, node: NodeId, ttl: Duration) -> Result<Entry, Errno> {
        Ok(Entry { ttl, ..self.attr(node)? })
    }

    pub(super) fn attr(&self, node: NodeId) -> Result<Entry, Errno> {
        let (attr, ttl) = match self.find(node)? {
            Found::Root => (Attr::directory(node, self.registry.names().map_or(0, |n| n.len()), self.changed()), NONE),
            Found::RootCtl => (Attr::directory(node, 0, self.started), NONE),
            Found::RootStatus | Found::RootFeatures => (Attr::file(node, 0, self.started), NONE),
            Found::Fixed(_, view, Fixed::Top) => (top(node, &view)?, NONE),
            Found::Fixed(_, view, Fixed::Ctl) => (Attr::directory(node, 0, incoming::created(&view.record)), NONE),
            Found::Fixed(_, view, _) => (Attr::file(node, 0, incoming::created(&view.record)), NONE),
            Found::Image(_, view, image) => match &view.shown {
                Shown::Frozen(tree) => {
                    let deep = tree.node(image.index)?.path.contains('/');
                    (tree.attr(image.index, image.alias)?, if deep { LONG } else { NONE })
                }
                Shown::Incoming(incoming) => (incoming.attr(image.index)?, NONE),
                Shown::Nothing => return Err(Errno::ESTALE),
            },
        };
        Ok(Entry { attr, ttl })
    }

    /// When a container last came or went.
    fn changed(&self) -> SystemTime {
        std::fs::metadata(self.registry.run_dir()).map_or(self.started, |metadata| super::attr::modified(&metadata))
    }

    fn list(&self, node: NodeId) -> Result<Vec<Listed>, Errno> {
        Ok(match self.find(node)? {
            Found::Root => {
                let names = self.registry.names().map_err(|failure| super::slots::told(&failure))?;
                // One that goes away meanwhile is left out.
                let place = |name: &String| Some(self.view(name).ok()?.place(Fixed::Top));
                names.iter().filter_map(|name| Some(listed(name, place(name)?, true))).collect()
            }
            Found::RootCtl => {
                vec![listed(FEATURES, Place::RootFeatures, false), listed(STATUS, Place::RootStatus, false)]
            }
            Found::Fixed(_, view, Fixed::Ctl) => {
                [(EVENTS, Fixed::Events), (STATE, Fixed::State), (STATUS, Fixed::Status)]
                    .into_iter()
                    .map(|(name, what)| listed(name, view.place(what), false))
                    .collect()
            }
            Found::Fixed(_, view, Fixed::Top) if view.state == State::Running => {
                vec![listed(BLOCKERS, view.place(Fixed::Blockers), false)]
            }
            Found::Fixed(_, view, Fixed::Top) => children(&view, TOP, false)?,
            Found::Image(_, view, image) => children(&view, image.index, image.alias)?,
            _ => return Err(Errno::ENOTDIR),
        })
    }
}

fn child(view: &View, parent: u32, alias: bool, name: &str) -> Result<Place, Errno> {
    match &view.shown {
        Shown::Frozen(tree) => {
            if tree.node(parent)?.content != Content::Directory {
                return Err(Errno::ENOTDIR);
            }
            let (index, decimal) = tree.child(parent, name)?;
            Ok(tree.id(index, alias || decimal))
        }
        Shown::Incoming(incoming) => Ok(incoming.id(incoming.child(parent, name)?)),
        Shown::Nothing => Err(Errno::ENOENT),
    }
}

fn children(view: &View, index: u32, alias: bool) -> Result<Vec<Listed>, Errno> {
    match &view.shown {
        Shown::Frozen(tree) => {
            let node = tree.node(index)?;
            if node.content != Content::Directory {
                return Err(Errno::ENOTDIR);
            }
            let one = |(name, &index): (&String, &u32)| {
                Ok(listed(name, tree.id(index, alias), tree.node(index)?.content == Content::Directory))
            };
            node.children.iter().map(one).collect()
        }
        Shown::Incoming(incoming) => {
            let one = |(name, index): (String, u32)| {
                // One that was removed meanwhile is left out.
                let attr = incoming.attr(index).ok()?;
                Some(Listed { name, node: attr.node, directory: attr.directory })
            };
            Ok(incoming.children(index)?.into_iter().filter_map(one).collect())
        }
        Shown::Nothing => Ok(Vec::new()),
    }
}

/// The directory of a container.
fn top(node: NodeId, view: &View) -> Result<Attr, Errno> {
    Ok(match &view.shown {
        Shown::Frozen(tree) => {
            let (subdirectories, set) = tree.top();
            Attr::directory(node, subdirectories, tree.time).with(&set)
        }
        Shown::Incoming(incoming) => Attr { node, ..incoming.top()? },
        Shown::Nothing => Attr::directory(node, 0, incoming::created(&view.record)),
    })
}

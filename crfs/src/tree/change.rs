//! Making, removing, renaming, setting attributes.

use super::attr::{Changes, Entry};
use super::frozen::TOP;
use super::handle::Opened;
use super::id::{Fixed, NodeId};
use super::incoming::Incoming;
use super::look::Found;
use super::slots::{Shown, View, told};
use super::{Inner, Step, Tree, control};
use crate::registry::State;
use nix::errno::Errno;
use std::sync::Arc;

/// A directory that takes files.
struct Target {
    name: String,
    incoming: Arc<Incoming>,
    index: u32,
}

impl Tree {
    /// Makes a directory: at the root a container that takes files.
    ///
    /// # Errors
    /// EEXIST, EINVAL for a name that cannot be (the reason is in the root's `.ctl/status`), EROFS, EPERM, EBUSY.
    pub fn make_directory(&self, parent: NodeId, name: &str, mode: u16) -> Result<Entry, Errno> {
        let inner = &self.0;
        if parent == NodeId::ROOT {
            return inner.make_container(name);
        }
        let target = inner.target(parent)?;
        let made = target.incoming.make_directory(target.index, name, mode);
        let index = made.map_err(|errno| inner.refuse(&target, name, errno))?;
        inner.attr(target.incoming.id(index).into())
    }

    /// Makes a file and opens it.
    ///
    /// # Errors
    /// As [`Tree::make_directory`], and ENOSPC.
    pub fn create(&self, parent: NodeId, name: &str, mode: u16, write: bool) -> Result<(Entry, Opened), Errno> {
        let inner = &self.0;
        if parent == NodeId::ROOT {
            inner.refusals.add(name, "only directories stand here: each is a container");
            return Err(Errno::EPERM);
        }
        let target = inner.target(parent)?;
        let made = target.incoming.create(target.index, name, mode);
        let (index, file) = made.map_err(|errno| inner.refuse(&target, name, errno))?;
        let entry = inner.attr(target.incoming.id(index).into())?;
        Ok((entry, inner.staged(target.name, &target.incoming, index, file, write)))
    }

    /// Removes a file that was copied in.
    ///
    /// # Errors
    /// ENOENT, EISDIR, EPERM for a live container (the reason is in its `.ctl/status`), EBUSY.
    pub fn unlink(&self, parent: NodeId, name: &str) -> Result<(), Errno> {
        let target = self.0.removal(parent)?;
        target.incoming.unlink(target.index, name)
    }

    /// Removes a directory that was copied in; at the root a container without processes and files.
    ///
    /// # Errors
    /// As [`Tree::unlink`], ENOTEMPTY, ENOTDIR.
    pub fn remove_directory(&self, parent: NodeId, name: &str) -> Result<(), Errno> {
        let inner = &self.0;
        if parent != NodeId::ROOT {
            let target = inner.removal(parent)?;
            return target.incoming.remove_directory(target.index, name);
        }
        let view = inner.view(name)?;
        match &view.shown {
            Shown::Frozen(_) => return Err(inner.refuse_removal(name, &view)),
            Shown::Incoming(incoming) if !incoming.is_empty() => return Err(Errno::ENOTEMPTY),
            Shown::Nothing if view.state == State::Running => return Err(inner.refuse_removal(name, &view)),
            _ => {}
        }
        inner.operations.remove(name).map_err(|failure| told(&failure))
    }

    /// Renames a file within a container that takes files. One that has the new name is replaced, unless `keep`. May complete
    /// the image, as [`Tree::flush`].
    pub fn rename(&self, from: (NodeId, &str), to: (NodeId, &str), keep: bool) -> Step<()> {
        match self.0.rename(from, to, keep) {
            Ok((target, next)) => self.0.follow(&target.name, &target.incoming, next),
            Err(errno) => Step::Now(Err(errno)),
        }
    }

    /// Sets attributes. On a frozen tree they are remembered while it stands; cutting a file of it is refused.
    ///
    /// # Errors
    /// EROFS, EPERM, ESTALE, ENOSPC.
    pub fn set_attr(&self, node: NodeId, changes: &Changes) -> Result<Entry, Errno> {
        let inner = &self.0;
        let (view, index) = match inner.find(node)? {
            Found::Image(_, view, image) => (view, image.index),
            Found::Fixed(_, view, Fixed::Top) => (view, TOP),
            // The shell's `>` cuts what it opens.
            Found::Fixed(_, _, Fixed::State) => return inner.attr(node),
            _ => return Err(Errno::EPERM),
        };
        match &view.shown {
            Shown::Frozen(_) if changes.size.is_some() => return Err(Errno::EROFS),
            Shown::Frozen(tree) => tree.remember(index, changes),
            Shown::Incoming(incoming) => incoming.set(index, changes)?,
            // `cp -a` of a directory onto one that is there already.
            Shown::Nothing if view.state == State::Exited => {}
            Shown::Nothing => return Err(Errno::EPERM),
        }
        inner.attr(node)
    }

    /// The answer to links, device files and the like: no image has them.
    pub fn refuse_special(&self, name: &str) -> Errno {
        self.0.refusals.add(name, "an image holds only regular files and directories");
        Errno::EPERM
    }

    /// The answer to a name that is not UTF-8: no container and no image has it.
    pub fn refuse_name(&self, name: &std::ffi::OsStr) -> Errno {
        self.0.refusals.add(name.to_string_lossy(), "the name is not UTF-8");
        Errno::EINVAL
    }
}

impl Inner {
    fn make_container(&self, name: &str) -> Result<Entry, Errno> {
        if let Err(failure) = crate::registry::check_name(name) {
            self.refusals.add(name, failure.to_string());
            return Err(failure.kind.errno());
        }
        if self.view(name).is_ok() {
            return Err(Errno::EEXIST);
        }
        self.operations.incoming(name).map_err(|failure| {
            self.refusals.add(name, failure.to_string());
            told(&failure)
        })?;
        self.lookup(NodeId::ROOT, name)
    }

    /// The answer to who writes to a frozen tree. It may be a copy that goes on where the first of its files has replaced what was wrong.
    pub(super) fn is_built(&self, name: &str) -> Errno {
        let reason =
            "it is frozen, and its files do not change; what was copied in is built as soon as all of it is there";
        self.refusals.add(name, reason);
        Errno::EROFS
    }

    /// The directory a file is to be made in. An exited container begins to take files with this.
    fn target(&self, parent: NodeId) -> Result<Target, Errno> {
        let (name, view, index) = match self.find(parent)? {
            Found::Image(name, view, image) => (name, view, image.index),
            Found::Fixed(name, view, Fixed::Top) => (name, view, TOP),
            _ => return Err(Errno::EPERM),
        };
        let incoming = match view.shown {
            Shown::Incoming(incoming) => incoming,
            Shown::Frozen(_) => return Err(self.is_built(&name)),
            Shown::Nothing if view.state == State::Exited => {
                self.operations.incoming(&name).map_err(|failure| told(&failure))?;
                match self.view(&name)?.shown {
                    Shown::Incoming(incoming) => incoming,
                    _ => return Err(Errno::EBUSY),
                }
            }
            Shown::Nothing => {
                if let Ok(container) = self.registry.container(&name) {
                    let reason = format!(
                        "{name}: it runs, so nothing can be copied in; copy under another name, or `crctl kill {name}` first"
                    );
                    control::refused(&container, "copy in", reason);
                }
                return Err(Errno::EPERM);
            }
        };
        Ok(Target { name, incoming, index })
    }

    /// The directory something is to be removed from.
    fn removal(&self, parent: NodeId) -> Result<Target, Errno> {
        let (name, view, index) = match self.find(parent)? {
            Found::Image(name, view, image) => (name, view, image.index),
            Found::Fixed(name, view, Fixed::Top) => (name, view, TOP),
            _ => return Err(Errno::EPERM),
        };
        match &view.shown {
            Shown::Incoming(incoming) => Ok(Target { name, incoming: Arc::clone(incoming), index }),
            Shown::Nothing if view.state == State::Exited => Err(Errno::ENOENT),
            _ => Err(self.refuse_removal(&name, &view)),
        }
    }

    fn refuse_removal(&self, name: &str, view: &View) -> Errno {
        if let Ok(container) = self.registry.container(name) {
            let reason = format!(
                "{name}: cannot remove a container that is {}; `crctl kill {name}` ends it, then `crctl rm {name}`",
                view.state
            );
            control::refused(&container, "remove", reason);
        }
        Errno::EPERM
    }

    /// Notes the reason of a name that was refused.
    fn refuse(&self, target: &Target, name: &str, errno: Errno) -> Errno {
        if errno == Errno::EINVAL {
            self.refusals.add(format!("{}/{name}", target.name), "an image has no file or directory of this name here");
        }
        errno
    }

    fn rename(
        &self,
        from: (NodeId, &str),
        to: (NodeId, &str),
        keep: bool,
    ) -> Result<(Target, super::incoming::Next), Errno> {
        if from.0 == NodeId::ROOT || to.0 == NodeId::ROOT {
            return Err(Errno::EPERM);
        }
        let (source, target) = (self.target(from.0)?, self.target(to.0)?);
        if source.name != target.name {
            return Err(Errno::EXDEV);
        }
        let renamed = target.incoming.rename((source.index, from.1), (target.index, to.1), keep);
        let next = renamed.map_err(|errno| self.refuse(&target, to.1, errno))?;
        Ok((target, next))
    }
}

//! fanotify groups: whether one was made without privileges.
//!
//! Source: include/linux/fsnotify_backend.h, include/linux/fanotify.h, v6.18.

use crate::error::Error;
use crate::feature::Feature;
use crate::files;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::Task;

impl KernelState {
    /// The flags of fanotify_init(2), and `FANOTIFY_UNPRIV` (1 << 31) of a group whose maker had no privileges. The descriptor must be one of
    /// a fanotify group, which its link in /proc tells.
    ///
    /// # Errors
    /// [`Error::NotOpen`], [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`].
    pub fn fanotify_flags(&self, task: &Task, fd: i32) -> Result<u32, Error> {
        let view = self.view(Feature::Fanotify, task)?;
        view.u32_from(files::file(&view, fd)?, &[Path::FilePrivate, Path::GroupFlags])
    }

    /// The same for a descriptor of the calling thread.
    ///
    /// # Errors
    /// As [`KernelState::fanotify_flags`].
    pub fn own_fanotify_flags(&self, fd: i32) -> Result<u32, Error> {
        self.fanotify_flags(&Task::caller(0), fd)
    }
}

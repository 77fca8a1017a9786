//! inotify instances: which number the next watch gets.
//!
//! Numbers are handed out in a circle and not again before its end, and nothing but the kernel remembers how far it got.
//!
//! Source: include/linux/fsnotify_backend.h, fs/notify/inotify/inotify_user.c, v6.18.

use crate::error::Error;
use crate::feature::Feature;
use crate::files;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::Task;

impl KernelState {
    /// The lowest number that inotify_add_watch(2) would return next, if it is free; 0 before the first. The descriptor must be one
    /// of an inotify instance, which its link in /proc tells.
    ///
    /// # Errors
    /// [`Error::NotOpen`], [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`].
    pub fn inotify_next_wd(&self, task: &Task, fd: i32) -> Result<u32, Error> {
        let view = self.view(Feature::Inotify, task)?;
        view.u32_from(files::file(&view, fd)?, &[Path::FilePrivate, Path::WatchNext])
    }

    /// The same for a descriptor of the calling thread.
    ///
    /// # Errors
    /// As [`KernelState::inotify_next_wd`].
    pub fn own_inotify_next_wd(&self, fd: i32) -> Result<u32, Error> {
        self.inotify_next_wd(&Task::caller(0), fd)
    }
}

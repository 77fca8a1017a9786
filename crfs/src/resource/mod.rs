//! One module per kind of kernel object: how it is captured into a record, and how it is made again from one.
//!
//! A module knows nothing of how records travel. What cannot be carried is collected in [`Findings`], all of it, so that
//! one attempt tells a user every obstacle.

pub mod aio;
pub mod autogroup;
pub mod cgroup;
pub mod container;
pub mod contents;
pub mod descriptor;
mod device;
mod directory;
pub mod ended_task;
pub mod epoll;
mod eventfd;
pub mod fanotify;
mod huge_pages;
mod inet_socket;
pub mod inotify;
pub mod interval_timer;
pub mod io_uring;
pub mod job_control;
pub mod kernel;
pub mod ldt;
pub mod lock;
pub mod login_uid;
mod loopback;
pub mod memory;
pub mod memory_policy;
pub mod met;
pub mod mount;
pub mod mqueue;
pub mod namespace;
mod netlink_socket;
pub mod numa;
pub mod owner;
mod path_only;
pub mod pid_namespace;
pub mod pidfd;
mod pipe;
pub mod posix_timer;
pub mod proc;
pub mod process;
pub mod pseudo_file;
pub mod registers;
mod regular_file;
pub mod seccomp;
pub mod security;
pub mod signal;
mod signalfd;
pub mod socket;
pub mod still;
pub mod subject;
pub mod sysv;
pub mod thread;
pub mod thread_controls;
pub mod time_namespace;
mod timerfd;
pub mod tty;
mod unix_socket;
pub mod unnamed;
pub mod unshared;
pub mod user_namespace;
mod watched_inode;
pub mod zombie;

use image_format::Blocker;

/// What a capture or a survey found besides the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// What stands in the way.
    pub blockers: Vec<Blocker>,
    /// What a user should know although it is carried.
    pub notes: Vec<String>,
}

impl Findings {
    /// Adds an obstacle.
    pub fn block(&mut self, object: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.blockers.push(Blocker::new(object, reason, remedy));
    }
}

//! Descriptors: which open file descriptions a container has, and under which numbers its processes hold them.
//!
//! **What it is.** A descriptor is a number in a process's table with one flag of its own (close-on-exec); what it names is an open
//! file description, with offset, status flags and whatever its kind has. Descriptors of several processes, and several of
//! one, may name the same description (fork(2), dup(2)).
//!
//! **Where the kernel keeps it.** `struct files_struct` and `struct file`:
//! <https://elixir.bootlin.com/linux/v6.18/source/include/linux/fs.h>.
//!
//! **How it is read.** From outside: /proc/PID/fd gives what each descriptor names, /proc/PID/fdinfo its offset, flags and the lines
//! of its kind. Which descriptors name one description is told by the address of its `struct file` in the kernel where that can be
//! read, otherwise by kcmp(2) among those that look alike. Descriptions are numbered in the order in which they are met, by process
//! and descriptor.
//!
//! **How it is made again.** Each description is opened once, in the worker, and carried into the processes from there. Pipes come
//! as a whole, with all their ends; what an epoll instance watches is registered by the
//! processes themselves, once their descriptors are in place, since the kernel remembers the number it was added under.
//!
//! **What is refused.** Every kind without a module of its own, by its name (`refused.rs`); files that are not to be found again
//! under their path; pipes whose other end is outside.

mod capture;
mod fdinfo;
mod gather;
pub(super) mod holders;
pub(super) mod in_flight;
pub mod inject;
pub(crate) mod limit;
mod pipes;
pub(super) mod place;
mod queues;
pub(super) mod refused;
pub(super) mod reopen;
mod restore;
pub(super) mod seen;
mod socket;
mod streams;
mod watched;

pub use capture::{Whose, capture};
pub use restore::{Opened, open_all, open_pseudo_files};

use image_format::files::{File, FileKind, Stdio};
use image_format::locks::Lock;
use image_format::mqueue::PosixQueue;
use image_format::process::Fd;
use image_format::tty::Pty;
use image_format::{FileId, Pid};
use std::collections::BTreeMap;

/// A descriptor table, and how it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableOf {
    /// The process, as the container numbers it.
    pub process: Pid,
    /// Whose table it is: the process, or a thread of it that has one for itself.
    pub owner: Pid,
    /// A thread that uses it, as the host numbers it.
    pub host: i32,
}

impl TableOf {
    /// That of a process.
    #[must_use]
    pub fn process(pid: Pid, host: i32) -> Self {
        TableOf { process: pid, owner: pid, host }
    }
}

/// Everything that was found open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// `files/`.
    pub files: BTreeMap<FileId, File>,
    /// `files/stdios`.
    pub stdios: Vec<Stdio>,
    /// `files/locks`.
    pub locks: Vec<Lock>,
    /// `fds` of each process, and of each thread that has its own, in ascending order.
    pub fds: BTreeMap<Pid, Vec<Fd>>,
    /// `files/pipe.N`: the bytes queued in each pipe, by the pipe's number.
    pub pipes: BTreeMap<u32, Vec<u8>>,
    /// `unnamed.N`: the content of each file that only messages carry, by its number.
    pub unnamed: BTreeMap<u32, Vec<u8>>,
    /// `posix.mq`.
    pub queues: Vec<PosixQueue>,
    /// `posix.mq.N`: the messages of each queue, by the queue's number.
    pub queued: BTreeMap<u32, Vec<u8>>,
    /// `files/tty.N`.
    pub ttys: BTreeMap<u32, Pty>,
    /// The files whose paths are those of a mount namespace apart, in order, by its number.
    pub elsewhere: BTreeMap<u32, Vec<FileId>>,
    /// The sockets that were made in a network namespace apart, in order, by the first process that is there.
    pub networks: BTreeMap<Pid, Vec<FileId>>,
    /// `files/ID.queue`: the bytes queued in each socket that has any, and the memory of each ring of io_uring.
    pub sockets: BTreeMap<FileId, Vec<u8>>,
}

/// Makes the records tell what remained of timers at a moment before they were captured: the one that the clocks of the image
/// show. `elapsed_ns` is the time from there to after the capture, so that no timer fires earlier in the container's time than it was
/// set to.
pub fn timers_at_moment(files: &mut BTreeMap<FileId, File>, elapsed_ns: i64) {
    for file in files.values_mut() {
        if let FileKind::Timerfd(record) = &mut file.kind {
            super::timerfd::earlier(record, elapsed_ns);
        }
    }
}

//! What a descriptor with O_PATH names, when it is neither a file nor a directory: a symbolic link, a FIFO, a socket, a device.
//!
//! **What it is.** An open file description that stands for a place: nothing can be read through it, and nothing behind it was opened.
//!
//! **Where the kernel keeps it.** `struct file` with `FMODE_PATH`:
//! <https://elixir.bootlin.com/linux/v6.18/source/fs/open.c>.
//!
//! **How it is read.** As a regular file: the link in /proc/PID/fd, looked up again.
//!
//! **How it is made again.** Its path is looked up, must have the same file type, and is opened with the recorded flags.
//!
//! **What is refused.** What was deleted or hidden, as of files; places in proc, which another process has after a restore.

mod capture;
mod restore;

pub(super) use capture::{capture, is_one};
pub(super) use restore::restore;

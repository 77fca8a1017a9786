//! What processes do about their controlling terminal, through a slave that the worker holds.

use crfs_tracee::{Arg, Batch};
use image_format::Pid;
use std::os::fd::{AsRawFd, BorrowedFd};

/// A session leader takes it.
pub fn take(batch: &mut Batch, slave: BorrowedFd<'_>, link: u32) {
    with(batch, slave, link, |batch, fd| {
        batch.call(libc::SYS_ioctl, &[fd, libc::TIOCSCTTY.into(), 0u32.into()], "ioctl(TIOCSCTTY)");
    });
}

/// The session leader puts a group into its foreground.
pub fn foreground(batch: &mut Batch, slave: BorrowedFd<'_>, link: u32, group: Pid) {
    with(batch, slave, link, |batch, fd| {
        let group = batch.data(&group.0.to_ne_bytes());
        batch.call(libc::SYS_ioctl, &[fd, libc::TIOCSPGRP.into(), group.into()], "ioctl(TIOCSPGRP)");
    });
}

/// A member of the session gives it up.
pub fn give_up(batch: &mut Batch, slave: BorrowedFd<'_>, link: u32) {
    with(batch, slave, link, |batch, fd| {
        batch.call(libc::SYS_ioctl, &[fd, libc::TIOCNOTTY.into(), 0u32.into()], "ioctl(TIOCNOTTY)");
    });
}

fn with(batch: &mut Batch, slave: BorrowedFd<'_>, link: u32, call: impl FnOnce(&mut Batch, Arg)) {
    let pull = [link.into(), slave.as_raw_fd().into(), 0u32.into()];
    let fd = Arg::Result(batch.call(libc::SYS_pidfd_getfd, &pull, "pidfd_getfd"));
    call(batch, fd);
    batch.call(libc::SYS_close, &[fd], "close");
}

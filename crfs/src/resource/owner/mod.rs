//! Who is signalled about an open file description.
//!
//! **What it is.** A thread, process or process group that gets SIGIO, or another signal, when a description becomes ready (O_ASYNC), and
//! SIGURG for what a socket has urgently: fcntl(2) F_SETOWN, F_SETOWN_EX, F_SETSIG; ioctl(2) FIOASYNC, FIOSETOWN, SIOCSPGRP. With it
//! stands who set it, since that user must be allowed to send signals there.
//!
//! **Where the kernel keeps it.** `struct fown_struct`: <https://elixir.bootlin.com/linux/v6.18/source/include/linux/fs.h>; who waits
//! for readiness is in a list of the object (`struct fasync_struct`), with the number of the descriptor.
//!
//! **How it is read.** A duplicate is asked (F_GETOWN_EX, F_GETSIG, F_GETOWNER_UIDS). It answers in the ids of who asks, the host's, which
//! /proc translates.
//!
//! **How it is made again.** By a process that has the description, with the number it has there, as the user who set it; last of all before
//! credentials, since everybody must be there and nothing that was done to build them may signal anybody.
//!
//! **What is refused.** An owner outside the container; a description that only a message carries; a signal that tells a
//! descriptor's number (F_SETSIG), where there are several; directories that are watched (F_NOTIFY).

mod capture;
mod restore;

pub(in crate::resource) use capture::capture;
pub use restore::{Setting, apply, settings};

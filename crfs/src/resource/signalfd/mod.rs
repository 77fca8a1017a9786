//! signalfd(2).
//!
//! **What it is.** A mask: reads take signals of that mask from the queues of whoever reads. The signals themselves are the
//! processes' and threads'.
//!
//! **Where the kernel keeps it.** `struct signalfd_ctx`: <https://elixir.bootlin.com/linux/v6.18/source/fs/signalfd.c>.
//!
//! **How it is read.** `sigmask` in fdinfo.
//!
//! **How it is made again.** signalfd4(2) with the mask. It needs nothing else.
//!
//! **What is refused.** Nothing.

mod capture;
mod restore;

pub(super) use capture::capture;
pub(super) use restore::restore;

//! eventfd(2).
//!
//! **What it is.** A 64-bit counter that writes add to and reads take from: as a whole, or by one (`EFD_SEMAPHORE`).
//!
//! **Where the kernel keeps it.** `struct eventfd_ctx`: <https://elixir.bootlin.com/linux/v6.18/source/fs/eventfd.c>.
//!
//! **How it is read.** `eventfd-count` (hexadecimal) and `eventfd-semaphore` in fdinfo.
//!
//! **How it is made again.** eventfd(2) with 0, then a write of the counter: the argument has only 32 bits. It needs nothing else.
//!
//! **What is refused.** A counter of 2^64 - 1, which no write can reach ("is at its very limit").

mod capture;
mod restore;

pub(super) use capture::capture;
pub(super) use restore::restore;

//! Character devices that keep no state: null, zero, full, random, urandom.
//!
//! **What it is.** An open file description on a device node whose driver remembers nothing about who opened it.
//!
//! **Where the kernel keeps it.** `drivers/char/mem.c` and `drivers/char/random.c`:
//! <https://elixir.bootlin.com/linux/v6.18/source/drivers/char/mem.c>.
//!
//! **How it is read.** The path as for a regular file; the device number tells which one it is.
//!
//! **How it is made again.** The path must be a character device of the same number; it is opened with the recorded flags.
//!
//! **What is refused.** Every other device, terminals by that word.

mod capture;
mod restore;

pub(super) use capture::{capture, is_carried};
pub(super) use restore::restore;

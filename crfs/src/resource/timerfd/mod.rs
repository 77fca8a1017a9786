//! timerfd_create(2).
//!
//! **What it is.** A timer on one clock that counts its expirations until they are read.
//!
//! **Where the kernel keeps it.** `struct timerfd_ctx`: <https://elixir.bootlin.com/linux/v6.18/source/fs/timerfd.c>.
//!
//! **How it is read.** fdinfo tells clock, time that remains, interval, flags and expirations. A periodic timer that has expired stands
//! still until it is read, and fdinfo does not tell how long ago that was; timerfd_gettime(2) on a duplicate brings it up to
//! date (counts what was missed, starts it again), which is what the program's own read would do, and no program can tell.
//!
//! **How it is made again.** A relative timer is set to the time that remains. One set to an absolute time (`TFD_TIMER_ABSTIME`) of
//! the wall clock gets that time again (time of the image plus what remained), one of another clock what the clock now says plus
//! what remains: those clocks continue in the container. Then the expirations are set (`TFD_IOC_SET_TICKS`).
//!
//! **What is refused.** A clock unknown here, by its number.

mod capture;
mod restore;

pub(super) use capture::{capture, earlier};
pub(super) use restore::restore;

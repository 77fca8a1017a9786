//! epoll instances.
//!
//! **What it is.** A set of (description, number it was added under), each with events, flags and 64 bits of the program's own.
//!
//! **Where the kernel keeps it.** `struct eventpoll` and `struct epitem`: <https://elixir.bootlin.com/linux/v6.18/source/fs/eventpoll.c>.
//!
//! **How it is read.** `tfd` lines in fdinfo. Which description a number stands for is told by kcmp(2) `KCMP_EPOLL_TFD`: the
//! number may have been closed and used again since, while a duplicate keeps the description open.
//!
//! **How it is made again.** The instance is created empty with the other descriptions. What it watches is added by a process that
//! has both descriptors, once they are in place ([`registrations`]): the kernel keys a target by number and description. Events
//! that are ready are reported anew, so an edge-triggered target may be told once more than without us, never once less.
//! Numbers that were closed or used again are taken for a moment by a process whose table is empty yet, for all that such an instance
//! watches, since what is switched off must come first.
//!
//! A target that is switched off after its one report (`EPOLLONESHOT`) cannot be added so, since the kernel always adds EPOLLERR and
//! EPOLLHUP: it is added for whatever it is ready for, which is then taken, before any other. Where it never hangs up (eventfd,
//! timerfd, signalfd, inotify, epoll) EPOLLERR and EPOLLHUP do no harm.
//!
//! **What is refused.** A target that only a duplicate outside the container keeps open ("was closed while"); one that is switched off
//! and not ready for anything.

mod capture;
mod restore;

pub(super) use capture::{Target, capture, check_target, is_ready};
pub(super) use restore::restore;
pub use restore::{EarlyRegistration, Registration, Registrations, Watch, register, register_early, registrations};

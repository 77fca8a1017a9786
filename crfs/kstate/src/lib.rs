//! Reads kernel state by name, through BTF and a small BPF program, and calibrates itself.
//!
//! What a checkpoint needs and the kernel tells nobody (signal handlers, alternate stacks, what remains of timers and sleeps, tid addresses,
//! SEM_UNDO, descriptor tables) is read from the kernel's own memory. Nothing runs in the task that is asked about and nothing in it
//! changes; a wrong address is an error and never a crash. [`KernelState`] says who may ask about which tasks.
//!
//! The kernel's layout is no contract. The structure paths stand by name in `paths.rs`, the running kernel's BTF tells where they lie, and
//! [`KernelState::calibrate`] reads children of known state to see that they mean what we think. Every getter belongs to a
//! [`Feature`]; one that does not read back right is off, and says why.

mod aio;
mod attributes;
mod btf;
mod cache;
mod calibrate;
mod error;
mod extended;
mod fanotify;
mod feature;
mod files;
mod flags;
mod inotify;
mod io_uring;
mod jiffies;
mod memory;
mod mqueue;
mod numa;
mod paths;
mod pending;
mod pending_tcp;
mod pending_unix;
mod per_cpu;
mod posix_timers;
mod registers;
mod restart;
mod seccomp;
mod security;
mod signals;
mod socket_buffers;
mod state;
mod sysvsem;
mod tasks;
mod thread;
mod timers;
mod tty;
mod waits;

pub use aio::AioContext;
pub use attributes::SyscallDispatch;
pub use btf::{BtfError, Field, Kind, PathError};
pub use error::Error;
pub use feature::{Disabled, Feature, Status};
pub use files::{OpenDescriptor, PipeEnds};
pub use flags::{MemoryFlags, ThreadFlags};
pub use io_uring::{IoRequests, IoUring};
pub use jiffies::Jiffies;
pub use memory::{Brk, MemoryLayout};
pub use mqueue::{MessageQueue, NotifyCookie, QueueNotify, QueuedMessage};
pub use numa::{Mapped, NumaPolicy, SharedPolicy};
pub use pending_tcp::PendingTcp;
pub use pending_unix::{PendingUnix, Sender, SentMessage};
pub use posix_timers::{Expiry, PosixTimer, PosixTimerStatus};
pub use registers::RseqArea;
pub use restart::{RestartBlock, RestartFutex, RestartNanosleep, RestartPoll};
pub use seccomp::SeccompFilter;
pub use security::{Keyring, Keyrings};
pub use signals::{AltStack, GroupStop, KernelSigaction, SIGNALS};
pub use state::{FAULT_VARIABLE, KernelState};
pub use sysvsem::SemUndo;
pub use tasks::Task;
pub use thread::{Shared, ThreadRecord};
pub use timers::Itimer;
pub use tty::{PtyQueue, PtySide};

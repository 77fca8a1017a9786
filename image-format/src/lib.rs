//! What a checkpoint is made of: the records, their text form, and where each stands in the tree.
//!
//! Pure data. Nothing here touches the machine: `crfs` captures into these records and restores from them, and every
//! transport (the mounted tree, a plain directory) carries the same rendered bytes.
#![forbid(unsafe_code)]

pub mod aio;
pub mod blocker;
pub mod cgroups;
pub mod check;
pub mod contents;
pub mod controls;
pub mod convert;
pub mod ended;
pub mod fanotify;
pub mod files;
pub mod image;
pub mod io_uring;
pub mod layout;
pub mod ldt;
pub mod locks;
pub mod manifest;
pub mod memory;
pub mod mounts;
pub mod mqueue;
pub mod namespaces;
pub mod numa;
pub mod parallel;
pub mod pid_namespaces;
pub mod process;
pub mod seccomp;
pub mod seekable;
pub mod sharing;
pub mod signal;
pub mod socket;
pub mod sysv;
pub mod text;
pub mod thread;
pub mod time_namespaces;
pub mod timer;
pub mod tty;
pub mod types;
pub mod unnamed;
pub mod user_namespaces;
pub mod xstate;

pub use blocker::Blocker;
pub use image::{Image, ProcessImage, Texts, ThreadImage};
pub use text::{TextError, parse_lines, parse_object, render_lines, render_object};
pub use types::{Address, Blob, Bytes, FileId, Hex, Octal, Pid, Timespec};

//! Processes: who they are, whom they belong to, and what they may use.
//!
//! - **What:** parent, group, session, executable, directories, umask, limits, layout of the address space, arguments and
//!   environment as shown.
//! - **Where:** `task_struct`, `signal_struct`, `fs_struct`, `mm_struct` (`include/linux/sched.h`, `include/linux/mm_types.h`,
//!   v6.18).
//! - **Read:** /proc/PID, or /proc/TID of another thread where the first has ended; the end of the heap, dumpable and child_subreaper from kernel memory.
//! - **Made again:** parents before children with the same ids; groups and sessions by setsid and setpgid while their leaders
//!   live; layout and executable by PR_SET_MM_MAP once memory is in place; limits and dumpable in the tail. A first thread that had
//!   ended does all that, and ends when only the others' registers are left to set.
//! - **Refused:** a controlling terminal, namespaces of its own, objects shared with
//!   another process that is neither thread nor parent, a parent outside the container, a group or session that others outside are in too; a parent that waits in vfork for a child
//!   that does not go on; each with its words in `blockers.rs`, `sharing.rs`, `outsiders.rs` and `vfork.rs`.

mod blockers;
mod capture;
mod directories;
mod limits;
mod outsiders;
pub mod restore;
mod sharing;
mod tables;
pub(crate) mod vfork;

pub use blockers::survey;
pub use capture::{Places, capture};
pub use directories::own as own_directories;
pub use outsiders::survey as survey_outsiders;
pub use sharing::{Sharers, has_memory_of_another, share, sharing};
pub use tables::{own_tables, tables};

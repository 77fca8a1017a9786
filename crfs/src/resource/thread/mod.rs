//! Threads: name, credentials, scheduling, and the addresses a thread registered with the kernel.
//!
//! - **What:** what /proc shows of a thread, and what it told the kernel with set_tid_address, set_robust_list, rseq, prctl.
//! - **Where:** `task_struct` and its `cred` (`include/linux/sched.h`, `include/linux/cred.h`, v6.18).
//! - **Read:** /proc/PID/task/TID/status and its neighbours, sched_getattr, ioprio_get, get_robust_list, ptrace for rseq;
//!   tid address, parent death signal and securebits from kernel memory.
//! - **Made again:** by injected calls, credentials in the tail: they clear what was allowed before.
//! - **Refused:** I/O ports, GDT entries, shadow stacks, speculation controls
//!   of its own, and threads that left their process's descriptor table, directories or namespaces.

mod blockers;
mod capture;
pub mod restore;

pub use blockers::{kernel_blockers, survey};
pub use capture::capture;

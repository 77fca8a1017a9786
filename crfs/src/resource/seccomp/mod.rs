//! Seccomp: which system calls a thread may make.
//!
//! - **What:** strict mode, or a chain of filters, of which threads share what they inherited or were synchronized to.
//! - **Where:** `task_struct.seccomp`, a list of `struct seccomp_filter` from the newest to the oldest (`kernel/seccomp.c`, v6.18).
//! - **Read:** programs and flags by PTRACE_SECCOMP_GET_FILTER and PTRACE_SECCOMP_GET_METADATA; which threads have the same
//!   filters, and whether somebody listens to one, from kernel memory. Nothing runs in the thread, so no filter is in the way.
//! - **Made again:** with the threads ([`crate::plan::threads`]), since a thread shares what it is born with, while
//!   PTRACE_O_SUSPEND_SECCOMP keeps filters from being asked; strict mode last. They count from the moment the worker lets go.
//!   Threads that share filters share them again, so that SECCOMP_FILTER_FLAG_TSYNC goes on working; processes get equal ones.
//! - **Refused:** a filter somebody listens to ("asks a supervisor").

mod capture;
pub mod restore;

pub use capture::Filters;

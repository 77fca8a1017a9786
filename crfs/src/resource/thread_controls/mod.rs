//! What a thread told the kernel by prctl(2) and arch_prctl(2), and nothing else shows.
//!
//! - **What:** instructions it may not use (rdtsc, cpuid), when it is told of memory errors, whether it is an I/O flusher, and system
//!   calls that become signals (syscall user dispatch).
//! - **Where:** `thread_info.flags`, `task_struct.flags`, `task_struct.syscall_dispatch` (`include/linux/sched.h`, v6.18).
//! - **Read:** /proc/PID/task/TID/stat; the rest from kernel memory.
//! - **Made again:** by injected calls; syscall user dispatch by ptrace, last: it would turn injected calls into signals.
//! - **Refused:** nothing. An I/O flusher needs CAP_SYS_RESOURCE; without it there is a note.

mod capture;
pub mod restore;

pub use capture::capture;

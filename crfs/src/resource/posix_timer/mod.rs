//! POSIX timers: timer_create(2).
//!
//! - **What:** the timers of a process: id, clock, what happens when one expires, time, interval, overruns.
//! - **Where:** `struct k_itimer`, in the list `signal_struct.posix_timers` (`kernel/time/posix-timers.c`, v6.18).
//! - **Read:** ids, clocks and notification from /proc/PID/timers; state, time and overruns from kernel memory.
//! - **Made again:** with their own ids (`PR_TIMER_CREATE_RESTORE_IDS`), the highest last since the next new id is one more. One
//!   whose signal waits to be taken is set to the past: it expires anew and sends that signal itself, and the kernel counts what it
//!   missed when the signal is taken. The overrun of an earlier expiration is made in the same way, and taken.
//! - **Refused:** alarm clocks and those of devices; processor time of other processes, of threads that ended, and of user time
//!   alone; a thread to be told that has ended.

mod capture;
mod listing;
pub mod restore;

pub use capture::{Timers, read, records, survey};

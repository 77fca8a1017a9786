//! Job control: processes that SIGSTOP and its like have stopped, and what their parents have not been told of it.
//!
//! - **What:** whether a process is stopped and by which signal; whether waitpid(2) has still to tell that it stopped (WUNTRACED) or
//!   went on (WCONTINUED).
//! - **Where:** `signal_struct.flags` and `group_exit_code`, and in each thread `jobctl` (`include/linux/sched/signal.h`,
//!   `include/linux/sched/jobctl.h`, v6.18).
//! - **Read:** the signal from the event stop of a traced thread, the rest from kernel memory.
//! - **Made again:** by the signal itself, once all processes stand in their groups and nothing dies any more, since the end of a
//!   parent may continue a group; the parent waits for what it had been told. A task in a group stop still runs what its tracer
//!   wants, so the rest of it is restored afterwards, and it is found stopped when it is let go of.
//! - **Refused:** nothing.

mod capture;
pub mod restore;

pub use capture::capture;

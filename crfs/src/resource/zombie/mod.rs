//! Zombies: children that ended and were not yet waited for.
//!
//! - **What:** a pid with an exit status, owed to a thread of the parent.
//! - **Where:** `task_struct.children` of the thread that made it, with `exit_state` EXIT_ZOMBIE (`kernel/exit.c`, v6.18).
//! - **Read:** /proc/PID/task/TID/children lists them; cgroup.procs does not. Their own stat and status still tell who they were.
//! - **Made again:** a child with the same id that takes the same name, group and session and ends the same way, after which
//!   the SIGCHLD it caused is taken back. A core dump that the status tells of is dumped again, small and for nobody.
//! - **Refused:** a child that lives outside of the container's cgroup ("is not in the container's cgroup").

mod capture;
pub mod restore;

pub use capture::{Children, Inside, capture};

//! Signals: what is blocked, what each one does, the stack for handlers, and what waits to be delivered.
//!
//! - **What:** a mask and a queue a thread, an alternate stack a thread, 64 actions and a shared queue a process.
//! - **Where:** `task_struct.blocked`, `.pending`, `.sas_ss_*`; `signal_struct.shared_pending`; `sighand_struct.action`
//!   (`include/linux/sched/signal.h`, v6.18).
//! - **Read:** mask and queues by ptrace (PTRACE_GETSIGMASK, which inside sigsuspend and its like gives the mask the call
//!   returns to; PTRACE_PEEKSIGINFO, which takes nothing out); actions and alternate stack from kernel memory.
//! - **Made again:** actions and stacks by injected calls, queues by rt_sigqueueinfo from the task itself while all is
//!   blocked, the mask last, with the registers.
//! - **Refused:** nothing of its own; a reader of kernel state that is off is an obstacle.

mod capture;
pub mod restore;

pub use capture::{ThreadSignals, actions, from_number, pending, thread};

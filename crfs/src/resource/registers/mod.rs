//! Registers: what a thread computes with, and the system call it was in.
//!
//! - **What:** general registers, segment bases, extended state (x87, SSE, AVX, PKRU), debug registers, and whether the
//!   thread was inside a system call when it was stopped.
//! - **Where:** `struct pt_regs` at the top of the kernel stack, `thread.fpu`, `thread.fsbase`, `thread.ptrace_bps`; a call
//!   to be taken up again in `task_struct.restart_block` (`arch/x86/kernel/signal.c`, `arch/x86/kernel/ptrace.c`, v6.18).
//! - **Read:** by ptrace from a thread in an event stop. It stops inside `get_signal`, so an interrupted call has left its
//!   restart code in rax and has not yet been restarted. The time a sleep had left comes from the restart block.
//! - **Made again:** by PTRACE_SETREGSET in the tail; a call with a restart block is entered anew with the time that
//!   remained and interrupted at once.
//!   A thread that is inside a restartable sequence (rseq) is recorded at its abort handler.
//! - **Refused:** 32-bit code ("runs 32-bit code"), since every number and structure differs there.

mod capture;
pub mod restore;
pub mod resume;
mod sequence;
pub mod shorten;
pub mod syscalls;

pub use capture::{Captured, capture};

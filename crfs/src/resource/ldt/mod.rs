//! Local descriptor tables: segments that a process defined with modify_ldt(2).
//!
//! - **What:** up to 8192 segment descriptors, the same for all threads of a process; children inherit them.
//! - **Where:** `mm_struct.context.ldt` (`arch/x86/kernel/ldt.c`, v6.18).
//! - **Read:** from kernel memory: modify_ldt(2) tells only the caller's own.
//! - **Made again:** entry by entry, after the children are made and before any register refers to one.
//! - **Refused:** nothing.

mod capture;
pub mod restore;

pub use capture::capture;

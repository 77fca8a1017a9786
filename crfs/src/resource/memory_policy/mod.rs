//! Memory policies: what holds for all of an address space.
//!
//! - **What:** where it gets huge pages, whether its pages are merged with others', whether memory may become executable, and whether
//!   new mappings are locked.
//! - **Where:** `mm_struct.flags` and `mm_struct.def_flags` (`include/linux/mm_types.h`, v6.18).
//! - **Read:** /proc/PID/status and /proc/PID/ksm_stat; the rest from kernel memory.
//! - **Made again:** by prctl(2) and mlockall(2) once memory is in place and the children, who inherit some of it, are made.
//! - **Refused:** nothing.

mod capture;
pub mod restore;

pub use capture::capture;

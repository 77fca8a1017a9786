//! NUMA policies: from which nodes threads and mappings get their memory.
//!
//! - **What:** mode, flags and nodes of each thread (set_mempolicy(2)) and of each mapping (mbind(2)), the latter with a home node.
//! - **Where:** `task_struct.mempolicy`, `vm_area_struct.vm_policy`; for memory in tmpfs, which whoever maps it shares, a tree of its own in
//!   `shmem_inode_info.policy` (`mm/mempolicy.c`, `mm/shmem.c`, v6.18).
//! - **Read:** from kernel memory: /proc/PID/numa_maps walks all page tables and knows no thread.
//! - **Made again:** those of mappings before there are contents, so that pages come to lie where they should; calls for shared memory set
//!   its tree as well. Those of threads once all children are made, who would inherit them. What a child inherited and did not
//!   have is taken off again.
//! - **Refused:** shared memory whose policies are not those of the mappings that there are: nobody would set them.

mod capture;
pub mod restore;
mod shared;

pub use capture::capture;

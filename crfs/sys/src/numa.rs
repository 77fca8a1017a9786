//! NUMA policies of the calling thread and of its memory.
//!
//! Source: set_mempolicy(2), mbind(2), get_mempolicy(2), set_mempolicy_home_node(2), mm/mempolicy.c, v6.18. Masks have the nodes 0 to 63.

use std::ptr::{null, null_mut};

use nix::Result;
use nix::errno::Errno;

/// Bits of a mask, and one that the kernel takes off.
const BITS: libc::c_ulong = 65;
/// More nodes than any kernel knows: get_mempolicy(2) wants room for all.
const WORDS: usize = 16;
/// Of get_mempolicy(2): the policy of an address.
const MPOL_F_ADDR: libc::c_ulong = 2;

/// A mode with its flags, and the nodes as a mask.
pub type Policy = (u32, u64);

/// A mask, and how many bits it has: none, for a policy without nodes.
fn mask(nodes: &u64) -> (*const u64, libc::c_ulong) {
    if *nodes == 0 { (null(), 0) } else { (nodes, BITS) }
}

/// Sets the policy of the thread.
pub fn set_thread(policy: Policy) -> Result<()> {
    let (mode, (mask, bits)) = (libc::c_long::from(policy.0), mask(&policy.1));
    // SAFETY: the kernel reads 64 bits, or none.
    Errno::result(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Sets the policy of memory.
pub fn set_memory(address: u64, length: usize, policy: Policy) -> Result<()> {
    let (mode, (mask, bits)) = (libc::c_long::from(policy.0), mask(&policy.1));
    // SAFETY: it changes no contents; the kernel reads 64 bits, or none.
    let result = unsafe { libc::syscall(libc::SYS_mbind, address, length, mode, mask, bits, 0) };
    Errno::result(result).map(drop)
}

/// Sets the home node of memory that has a policy.
pub fn set_home_node(address: u64, length: usize, node: u32) -> Result<()> {
    // SAFETY: it changes no contents.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy_home_node, address, length, u64::from(node), 0) };
    Errno::result(result).map(drop)
}

/// The policy of the thread.
pub fn of_thread() -> Result<Policy> {
    get(null_mut(), 0)
}

/// The policy that the kernel follows for an address.
pub fn of_memory(address: u64) -> Result<Policy> {
    let address = usize::try_from(address).map_err(|_| Errno::EFAULT)?;
    get(std::ptr::without_provenance_mut(address), MPOL_F_ADDR)
}

fn get(address: *mut libc::c_void, flags: libc::c_ulong) -> Result<Policy> {
    let (mut mode, mut words) = (0u32, [0u64; WORDS]);
    let bits = WORDS * 64;
    // SAFETY: the kernel writes a number and as many bits; the address is none that it reads or writes at.
    let result =
        unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, words.as_mut_ptr(), bits, address, flags) };
    Errno::result(result).map(|_| (mode, words[0]))
}

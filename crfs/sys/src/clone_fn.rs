//! clone(2) of a process that shares memory with its maker: what fork, threads and vfork are not.
//!
//! Source: clone(2).

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// Bytes of the new process's stack.
const STACK: usize = 256 << 10;

/// Runs `body` in a new process that shares with the caller its memory, and what `flags` (`CLONE_*`) say besides. The process ends
/// with what `body` returns; its stack stays mapped.
///
/// # Contract
/// It shares the thread pointer too, so the C library takes it for the calling thread: it must not allocate memory nor use anything
/// else that is a thread's own.
///
/// # Errors
/// As clone(2) and mmap(2).
pub fn sharing_memory(flags: i32, exit_signal: i32, body: fn(usize) -> i32, argument: usize) -> Result<Pid> {
    struct Start {
        body: fn(usize) -> i32,
        argument: usize,
    }
    extern "C" fn begin(start: *mut c_void) -> c_int {
        // SAFETY: `start` is the box that is leaked below, which nobody frees.
        let Start { body, argument } = unsafe { &*start.cast::<Start>() };
        body(*argument)
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let stack = unsafe { libc::mmap(null_mut(), STACK, protection, kind, -1, 0) };
    if stack == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    let start: *mut Start = Box::into_raw(Box::new(Start { body, argument }));
    // SAFETY: the stack's end lies within the mapping (or at its end), aligned to a page; stack and start outlive the process.
    let child =
        unsafe { libc::clone(begin, stack.byte_add(STACK), libc::CLONE_VM | flags | exit_signal, start.cast()) };
    Errno::result(child).map(Pid::from_raw)
}

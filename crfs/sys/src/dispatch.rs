//! Syscall user dispatch of the calling thread: system calls that become SIGSYS while a byte says so.
//!
//! Source: prctl(2) PR_SET_SYSCALL_USER_DISPATCH, Documentation/admin-guide/syscall-user-dispatch.rst, v6.18.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use libc::c_ulong;
use nix::Result;
use nix::errno::Errno;

const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
const PR_SYS_DISPATCH_ON: c_ulong = 1;
/// SYSCALL_DISPATCH_FILTER_ALLOW and SYSCALL_DISPATCH_FILTER_BLOCK
const ALLOW: u8 = 0;
const BLOCK: u8 = 1;

static SELECTOR: AtomicU8 = AtomicU8::new(ALLOW);
static CAUGHT: AtomicU64 = AtomicU64::new(0);

extern "C" fn catch(_: libc::c_int) {
    // First: the return from the handler is a call too.
    SELECTOR.store(ALLOW, Ordering::SeqCst);
    CAUGHT.fetch_add(1, Ordering::SeqCst);
}

/// Switches it on, with all calls allowed. For one thread of a program.
pub fn switch_on() -> Result<()> {
    // SAFETY: an all-zero sigaction is a valid one (SIG_DFL).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = (catch as extern "C" fn(libc::c_int)) as usize;
    // SAFETY: the handler only touches atomics, which is safe whatever it interrupts.
    Errno::result(unsafe { libc::sigaction(libc::SIGSYS, &raw const action, null_mut()) })?;
    let nowhere: c_ulong = 0;
    let selector = SELECTOR.as_ptr();
    // SAFETY: the kernel reads the byte at `selector`, which is there as long as the program.
    let set = unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, nowhere, nowhere, selector) };
    Errno::result(set).map(drop)
}

/// Blocks calls, makes one and says whether it became a signal. From the thread that switched it on.
#[must_use]
pub fn catches() -> bool {
    let before = CAUGHT.load(Ordering::SeqCst);
    SELECTOR.store(BLOCK, Ordering::SeqCst);
    // SAFETY: a call without arguments.
    unsafe { libc::syscall(libc::SYS_getppid) };
    SELECTOR.store(ALLOW, Ordering::SeqCst);
    CAUGHT.load(Ordering::SeqCst) == before + 1
}

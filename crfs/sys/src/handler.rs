//! A signal handler that counts, and alternate stacks for it.
//!
//! Source: sigaction(2), sigaltstack(2).

use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nix::Result;
use nix::errno::Errno;

static DELIVERED: [AtomicU64; 65] = [const { AtomicU64::new(0) }; 65];
static STACK_POINTER: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count_delivery(signal: libc::c_int) {
    let on_stack = 0u8;
    STACK_POINTER.store((&raw const on_stack).addr(), Ordering::SeqCst);
    if let Some(count) = usize::try_from(signal).ok().and_then(|signal| DELIVERED.get(signal)) {
        count.fetch_add(1, Ordering::SeqCst);
    }
}

/// Installs the counting handler for a signal, with `SA_*` flags and the signals blocked meanwhile (signal 1 in bit 0).
pub fn install(signal: i32, flags: i32, mask: u64) -> Result<()> {
    // SAFETY: an all-zero sigaction is a valid one (SIG_DFL).
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = (count_delivery as extern "C" fn(libc::c_int)) as usize;
    action.sa_flags = flags;
    for other in (1..=64).filter(|n| mask >> (n - 1) & 1 == 1) {
        // SAFETY: changes the set it is given.
        Errno::result(unsafe { libc::sigaddset(&raw mut action.sa_mask, other) })?;
    }
    // SAFETY: the handler only touches atomics, which is safe whatever it interrupts.
    Errno::result(unsafe { libc::sigaction(signal, &raw const action, null_mut()) }).map(drop)
}

/// The action in force: handler address, flags, blocked signals.
pub fn action(signal: i32) -> Result<(usize, i32, u64)> {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: writes one structure.
    Errno::result(unsafe { libc::sigaction(signal, std::ptr::null(), now.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it is filled.
    let now = unsafe { now.assume_init() };
    // SAFETY: reads the set it is given.
    let blocked = (1..=64).filter(|&n| unsafe { libc::sigismember(&raw const now.sa_mask, n) } == 1);
    Ok((now.sa_sigaction, now.sa_flags, blocked.fold(0, |mask, n| mask | 1 << (n - 1))))
}

/// How often the handler ran for this signal.
#[must_use]
pub fn delivered(signal: i32) -> u64 {
    let count = usize::try_from(signal).ok().and_then(|signal| DELIVERED.get(signal));
    count.map_or(0, |count| count.load(Ordering::SeqCst))
}

/// An address on the stack that the handler last ran on.
#[must_use]
pub fn last_stack_pointer() -> usize {
    STACK_POINTER.load(Ordering::SeqCst)
}

/// Gives the calling thread an alternate stack of `bytes`, which is never freed, and returns its lowest address.
pub fn set_alternate_stack(bytes: usize) -> Result<usize> {
    let stack: &'static mut [u8] = Box::leak(vec![0; bytes].into_boxed_slice());
    let new = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: stack.len() };
    // SAFETY: the memory is writable, nobody else's, and stays for ever.
    Errno::result(unsafe { libc::sigaltstack(&raw const new, null_mut()) })?;
    Ok(new.ss_sp.addr())
}

/// The calling thread's alternate stack: lowest address, bytes, `SS_*` flags.
pub fn alternate_stack() -> Result<(usize, usize, i32)> {
    let mut now = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: writes one structure.
    Errno::result(unsafe { libc::sigaltstack(std::ptr::null(), now.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so it is filled.
    let now = unsafe { now.assume_init() };
    Ok((now.ss_sp.addr(), now.ss_size, now.ss_flags))
}

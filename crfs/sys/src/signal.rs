//! Signal actions and masks by number, with the two that the C library keeps for itself.
//!
//! Source: rt_sigaction(2), rt_sigprocmask(2); `include/uapi/asm-generic/signal.h`, v6.18.

use std::mem::size_of;
use std::ptr::{null, null_mut};

use nix::Result;
use nix::errno::Errno;

/// How many signals there are: 1 to 64.
pub const COUNT: i32 = 64;

/// `struct sigaction` as the kernel has it on x86-64, in the order of its fields.
///
/// It is public so that it can be laid out in the memory of another task.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelSigaction {
    /// Address of the handler, 0 `SIG_DFL`, 1 `SIG_IGN`.
    pub handler: u64,
    /// `SA_*`
    pub flags: u64,
    /// Where the handler returns to; with `SA_RESTORER`.
    pub restorer: u64,
    /// What is blocked meanwhile, signal 1 in bit 0.
    pub mask: u64,
}
const _: () = assert!(size_of::<KernelSigaction>() == 32);

/// The bit of a signal (1 to 64) in a mask; 0 for any other number.
#[must_use]
pub const fn bit(signal: i32) -> u64 {
    if signal >= 1 && signal <= COUNT { 1 << (signal - 1) } else { 0 }
}

/// Ignores a signal, or sets its default action again.
pub fn ignore(signal: i32, ignored: bool) -> Result<()> {
    let action = KernelSigaction { handler: u64::from(ignored), ..KernelSigaction::default() };
    let no_old: *mut KernelSigaction = null_mut();
    // SAFETY: the kernel reads one structure, and no code of ours can be called by it.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const action, no_old, size_of::<u64>()) };
    Errno::result(result).map(drop)
}

/// Sets the disposition of every signal of the calling process to `SIG_DFL`: exec resets handlers but keeps what is ignored.
pub fn reset_all() -> Result<()> {
    let default = KernelSigaction::default();
    for signal in (1..=COUNT).filter(|&signal| signal != libc::SIGKILL && signal != libc::SIGSTOP) {
        let no_old: *mut KernelSigaction = null_mut();
        // SAFETY: the kernel reads one structure; to default, no code of ours can be called by it. The raw call is used since
        // the C library refuses its own signals 32 and 33.
        let result =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, no_old, size_of::<u64>()) };
        Errno::result(result)?;
    }
    Ok(())
}

fn sigprocmask(how: i32, new: Option<u64>) -> Result<u64> {
    let new = new.as_ref().map_or(null(), std::ptr::from_ref);
    let mut old = 0u64;
    // SAFETY: `new` is null or 8 bytes that are read, `old` 8 bytes that are written.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, &raw mut old, size_of::<u64>()) };
    Errno::result(result)?;
    Ok(old)
}

/// The blocked signals of the calling thread.
pub fn mask() -> Result<u64> {
    sigprocmask(libc::SIG_BLOCK, None)
}

/// Sets the blocked signals of the calling thread and returns the old mask.
pub fn set_mask(mask: u64) -> Result<u64> {
    sigprocmask(libc::SIG_SETMASK, Some(mask))
}

/// Blocks further signals and returns the old mask.
pub fn block(mask: u64) -> Result<u64> {
    sigprocmask(libc::SIG_BLOCK, Some(mask))
}

/// Unblocks signals and returns the old mask.
pub fn unblock(mask: u64) -> Result<u64> {
    sigprocmask(libc::SIG_UNBLOCK, Some(mask))
}

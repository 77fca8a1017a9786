//! A segment of one's own in the local descriptor table, and memory read through it.
//!
//! Source: modify_ldt(2), arch/x86/kernel/ldt.c, v6.18.

use std::arch::asm;
use std::ptr::null_mut;

use nix::Result;
use nix::errno::Errno;

use crate::thread_area::UserDesc;

/// Bytes of the segment.
const PAGE: usize = 4096;
/// modify_ldt(2): writes an entry with all its fields.
const WRITE: i32 = 0x11;
/// seg_32bit and useable: writable data.
const DATA: u32 = 0x41;

/// Defines entry `entry` as a segment that begins with `value`, and loads it into the GS register of the calling thread, which a
/// 64-bit program has no other use for. The memory stays for ever.
///
/// `ENOSYS` on a kernel without the call.
pub fn define(entry: u16, value: u32) -> Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    // SAFETY: a new mapping, of nobody else's memory.
    let memory = unsafe { libc::mmap(null_mut(), PAGE, protection, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: the mapping is that large, aligned and writable.
    unsafe { memory.cast::<u32>().write_volatile(value) };
    let base_addr = u32::try_from(memory.expose_provenance()).map_err(|_| Errno::EOVERFLOW)?;
    let segment = UserDesc { entry_number: entry.into(), base_addr, limit: 0xfff, flags: DATA };
    let bytes = segment.to_bytes();
    // SAFETY: the kernel reads the 16 bytes.
    let result = unsafe { libc::syscall(libc::SYS_modify_ldt, WRITE, bytes.as_ptr(), bytes.len()) };
    // It returns 32 bits: an error is no negative number of 64.
    let [b0, b1, b2, b3, ..] = result.to_ne_bytes();
    match i32::from_ne_bytes([b0, b1, b2, b3]) {
        0 => {}
        error => return Err(Errno::from_raw(-error)),
    }
    // The table's bit and privilege level 3.
    let selector = entry << 3 | 4 | 3;
    // SAFETY: the selector is of an entry that was just defined, and nothing uses GS.
    unsafe { asm!("mov gs, {0:x}", in(reg) selector, options(nostack, preserves_flags)) };
    Ok(())
}

/// The number that the segment in GS begins with. Only after [`define`] in this thread.
#[must_use]
pub fn read() -> u32 {
    let value: u32;
    // SAFETY: the segment is of mapped memory; that it was defined is the caller's affair, and without it this raises SIGSEGV.
    unsafe { asm!("mov {0:e}, dword ptr gs:[0]", out(reg) value, options(nostack, readonly, preserves_flags)) };
    value
}

//! A restartable sequence: code that the kernel leaves by its abort handler whenever it is interrupted.
//!
//! Source: rseq(2) as registered by the C library; `include/uapi/linux/rseq.h`, `arch/x86/include/uapi/asm/rseq.h` of librseq's ABI, v6.18.

use std::arch::asm;

unsafe extern "C" {
    /// Where the C library has a thread's `struct rseq`, from its thread pointer (glibc 2.35).
    static __rseq_offset: isize;
    /// Bytes of it that are in use; 0 when it is not registered.
    static __rseq_size: u32;
}

/// Whether the C library has registered restartable sequences for the calling thread.
#[must_use]
pub fn is_registered() -> bool {
    // SAFETY: a constant of the C library, set before main.
    unsafe { __rseq_size != 0 }
}

/// The calling thread's area as the C library registered it: its address, and the size in bytes.
#[must_use]
pub fn area() -> Option<(u64, u32)> {
    /// The size of the first version, which the library registers however little of it is in use.
    const LEAST: u32 = 32;
    is_registered().then(|| {
        let (pointer, offset, size): (isize, isize, u32);
        // SAFETY: the first word at the thread pointer is its own address (the ABI of thread-local storage); constants as above.
        unsafe {
            asm!("mov {}, fs:0", out(reg) pointer, options(nostack, readonly));
            (offset, size) = (__rseq_offset, __rseq_size);
        }
        (pointer.wrapping_add(offset).cast_unsigned() as u64, size.max(LEAST))
    })
}

/// Goes round in a critical section that has no end, and returns when it was aborted: the thread was interrupted in it by a signal
/// handler, another program, or another CPU. Call it only where [`is_registered`].
pub fn until_aborted() {
    // SAFETY: the section touches nothing but `rseq_cs` of the thread's own area, which is registered and 8 bytes into it; the abort
    // handler behind its signature follows the section, and the kernel clears `rseq_cs` on the way to it.
    unsafe {
        asm!(
            ".pushsection __rseq_cs, \"aw\"",
            ".balign 32",
            // version, flags, start_ip, post_commit_offset, abort_ip
            "5:",
            ".long 0, 0",
            ".quad 2f, 3f - 2f, 4f",
            ".popsection",
            "mov {area}, fs:0",
            "add {area}, {offset}",
            "lea {table}, [rip + 5b]",
            "mov [{area} + 8], {table}",
            "2:",
            "pause",
            "jmp 2b",
            "3:",
            // RSEQ_SIG within an instruction that is never run.
            ".byte 0x0f, 0xb9, 0x3d",
            ".long 0x53053053",
            "4:",
            offset = in(reg) __rseq_offset,
            area = out(reg) _,
            table = out(reg) _,
        );
    }
}

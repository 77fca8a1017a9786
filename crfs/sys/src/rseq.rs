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

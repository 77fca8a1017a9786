//! The thread-local storage entries of the GDT, which 32-bit programs use, set in a traced task.
//!
//! Source: ptrace(2), set_thread_area(2), arch/x86/kernel/tls.c (`do_set_thread_area`), v6.18.

use nix::errno::Errno;
use nix::unistd::Pid;

/// The first of the three entries (`GDT_ENTRY_TLS_MIN` of arch/x86/include/asm/segment.h, 64-bit kernels).
pub const FIRST_ENTRY: u32 = 12;

const PTRACE_SET_THREAD_AREA: libc::c_uint = 26;

/// `struct user_desc` of asm/ldt.h, also what modify_ldt(2) takes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserDesc {
    /// Index of the entry.
    pub entry_number: u32,
    /// Linear address where the segment begins.
    pub base_addr: u32,
    /// Its last offset, in bytes or pages.
    pub limit: u32,
    /// seg_32bit:1, contents:2, read_exec_only:1, limit_in_pages:1, seg_not_present:1, useable:1, lm:1 from bit 0.
    pub flags: u32,
}

const _: () = assert!(size_of::<UserDesc>() == 16);

impl UserDesc {
    /// The bytes, as the kernel takes them.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (to, word) in bytes.chunks_exact_mut(4).zip([self.entry_number, self.base_addr, self.limit, self.flags]) {
            to.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// Sets one entry (12 to 14) of a stopped tracee.
///
/// # Errors
/// EIO on a kernel that has no 32-bit programs (CONFIG_IA32_EMULATION), ESRCH for a task that is not a stopped tracee, EINVAL
/// for another entry or a descriptor the kernel does not allow.
pub fn set(task: Pid, desc: &UserDesc) -> nix::Result<()> {
    // SAFETY: the kernel reads 16 bytes at `desc`, which is that long; nothing of ours is written.
    let result = unsafe {
        libc::ptrace(PTRACE_SET_THREAD_AREA, task.as_raw(), desc.entry_number as usize, std::ptr::from_ref(desc))
    };
    Errno::result(result).map(drop)
}

//! The machine code that is put into a tracee: all of it stands here.
//!
//! # The loop
//! It walks an array of [entries](Entry), resolves references among their arguments, makes the calls, stores the results, and
//! stops at the first that fails and must not. It uses no stack, so that the stack may be unmapped and mapped by what it runs. In:
//! rbx the first entry, r12 the end of the array, r14 the first result. Out: rbx the entry it stopped at, or r12.
//!
//! # How it ends
//! By sending itself SIGSTKFLT with tgkill(2), which the tracer sees as a signal-delivery stop at [`MARKER`] and never passes on.
//! - An int3 would do the same for less, but a forced SIGTRAP that is ignored or blocked resets its disposition
//!   (`force_sig_info_to_task` in `kernel/signal.c`, v6.18), and dispositions are what is being restored.
//! - A signal that is merely sent changes nothing: while a task is traced even one it ignores is queued and reported, also to
//!   the init of a pid namespace (`sig_ignored`), and a suppressed one leaves no trace.
//! - SIGSTKFLT is never raised by the kernel on x86 and used by nobody; SIGSTOP, which no mask can block, would throw pending
//!   SIGCONTs away. All other signals are blocked meanwhile. Being one of the first 31 it is marked pending even when
//!   RLIMIT_SIGPENDING is used up.
//! - Stopping at an entry of a system call would need PTRACE_SYSCALL, that is two stops for every call of the batch.
//!
//! # System call numbers in it
//! 39 getpid, 186 gettid, 234 tgkill.

use crate::RemoteAddress;

/// The signal that marks the end of a batch.
pub(crate) const MARKER_SIGNAL: i32 = libc::SIGSTKFLT;

/// Offset of a bare `syscall` instruction for calls that are made one at a time, between their entry and exit stops.
pub(crate) const GADGET: u64 = 0x00;
/// Offset of the loop.
pub(crate) const LOOP: u64 = 0x04;
/// Offset of the instruction that the loop is about to execute when it is done.
pub(crate) const MARKER: u64 = 0x91;

/// The code page's contents.
#[rustfmt::skip]
pub(crate) const CODE: [u8; 0x93] = [
    // gadget:
    0x0f, 0x05,                                 // 00 syscall
    0x0f, 0x0b,                                 // 02 ud2
    // loop:
    0x4c, 0x39, 0xe3,                           // 04 cmp    rbx, r12
    0x73, 0x6a,                                 // 07 jae    done
    0x44, 0x8b, 0x6b, 0x38,                     // 09 mov    r13d, [rbx+56]        flags
    0x41, 0xf6, 0xc5, 0x3f,                     // 0d test   r13b, 0x3f            any references?
    0x74, 0x27,                                 // 11 je     load
    0x31, 0xc9,                                 // 13 xor    ecx, ecx
    // argument:
    0x41, 0x0f, 0xa3, 0xcd,                     // 15 bt     r13d, ecx             is this one a reference?
    0x73, 0x18,                                 // 19 jnc    next
    0x48, 0x8b, 0x44, 0xcb, 0x08,               // 1b mov    rax, [rbx+rcx*8+8]
    0x48, 0x8b, 0x00,                           // 20 mov    rax, [rax]
    0x8d, 0x51, 0x08,                           // 23 lea    edx, [rcx+8]
    0x41, 0x0f, 0xa3, 0xd5,                     // 26 bt     r13d, edx             to 32 bits?
    0x73, 0x02,                                 // 2a jnc    store
    0x89, 0xc0,                                 // 2c mov    eax, eax
    // store:
    0x48, 0x89, 0x44, 0xcb, 0x08,               // 2e mov    [rbx+rcx*8+8], rax
    // next:
    0xff, 0xc1,                                 // 33 inc    ecx
    0x83, 0xf9, 0x06,                           // 35 cmp    ecx, 6
    0x72, 0xdb,                                 // 38 jb     argument
    // load:
    0x48, 0x8b, 0x03,                           // 3a mov    rax, [rbx]            number
    0x48, 0x8b, 0x7b, 0x08,                     // 3d mov    rdi, [rbx+8]
    0x48, 0x8b, 0x73, 0x10,                     // 41 mov    rsi, [rbx+16]
    0x48, 0x8b, 0x53, 0x18,                     // 45 mov    rdx, [rbx+24]
    0x4c, 0x8b, 0x53, 0x20,                     // 49 mov    r10, [rbx+32]
    0x4c, 0x8b, 0x43, 0x28,                     // 4d mov    r8, [rbx+40]
    0x4c, 0x8b, 0x4b, 0x30,                     // 51 mov    r9, [rbx+48]
    0x0f, 0x05,                                 // 55 syscall
    0x49, 0x89, 0x06,                           // 57 mov    [r14], rax            result
    0x41, 0x0f, 0xba, 0xe5, 0x10,               // 5a bt     r13d, 16              must it succeed?
    0x73, 0x08,                                 // 5f jnc    advance
    0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff,         // 61 cmp    rax, -4095
    0x73, 0x0a,                                 // 67 jae    done
    // advance:
    0x48, 0x83, 0xc3, 0x40,                     // 69 add    rbx, 64
    0x49, 0x83, 0xc6, 0x08,                     // 6d add    r14, 8
    0xeb, 0x91,                                 // 71 jmp    loop
    // done:
    0xb8, 0x27, 0x00, 0x00, 0x00,               // 73 mov    eax, 39               getpid
    0x0f, 0x05,                                 // 78 syscall
    0x89, 0xc7,                                 // 7a mov    edi, eax
    0xb8, 0xba, 0x00, 0x00, 0x00,               // 7c mov    eax, 186              gettid
    0x0f, 0x05,                                 // 81 syscall
    0x89, 0xc6,                                 // 83 mov    esi, eax
    0xba, 0x10, 0x00, 0x00, 0x00,               // 85 mov    edx, 16               SIGSTKFLT
    0xb8, 0xea, 0x00, 0x00, 0x00,               // 8a mov    eax, 234              tgkill
    0x0f, 0x05,                                 // 8f syscall
    // marker:
    0x0f, 0x0b,                                 // 91 ud2                          only if tgkill was refused
];

/// Size of an encoded [`Entry`].
pub(crate) const ENTRY_SIZE: usize = 64;
/// Size of a result.
pub(crate) const RESULT_SIZE: usize = 8;

/// One call as the loop reads it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    pub(crate) nr: u64,
    pub(crate) args: [u64; 6],
    /// Bit n: argument n is the address of the value. Bit 8 + n: of which only 32 bits count. Bit 16: the call must succeed.
    pub(crate) flags: u64,
}

impl Entry {
    pub(crate) const MUST_SUCCEED: u64 = 1 << 16;

    /// Makes argument `index` a reference to 64 bits of memory.
    pub(crate) fn refer(&mut self, index: usize, address: RemoteAddress) {
        self.args[index] = address.0;
        self.flags |= 1 << index;
    }

    /// Makes argument `index` a reference to 32 bits of memory (64 are read).
    pub(crate) fn refer_32(&mut self, index: usize, address: RemoteAddress) {
        self.refer(index, address);
        self.flags |= 1 << (8 + index);
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.nr.to_ne_bytes());
        for arg in self.args {
            out.extend_from_slice(&arg.to_ne_bytes());
        }
        out.extend_from_slice(&self.flags.to_ne_bytes());
    }
}

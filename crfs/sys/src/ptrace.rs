//! ptrace(2): the requests that nix does not cover, or covers only for the 31 standard signals.
//!
//! Seizing, interrupting, options, event messages and general registers are in [`nix::sys::ptrace`]. Except where a function says
//! otherwise the task must be a stopped tracee of the calling thread, and anything else is `ESRCH`.
//!
//! Source: ptrace(2); `include/uapi/linux/ptrace.h` and `kernel/ptrace.c`, v6.18.

use std::mem::{offset_of, size_of};
use std::ptr::{from_mut, from_ref, null_mut};
use std::sync::LazyLock;

use libc::{c_long, c_uint, c_void};
use nix::Result;
use nix::errno::Errno;
use nix::unistd::Pid;

/// General registers, `struct user_regs_struct`: 27 words of 8 bytes.
pub use libc::user_regs_struct as UserRegs;

/// One instruction of a classic BPF filter, `struct sock_filter`: 8 bytes.
pub use libc::sock_filter as SockFilter;

/// A raw `siginfo_t` as the kernel's interfaces carry it: 128 bytes.
pub type SigInfo = [u8; 128];

const SECCOMP_GET_FILTER: c_uint = 0x420c;
const SECCOMP_GET_METADATA: c_uint = 0x420d;
const SET_SYSCALL_USER_DISPATCH_CONFIG: c_uint = 0x4210;
/// linux/prctl.h
const PR_SYS_DISPATCH_ON: u64 = 1;
const PR_SYS_DISPATCH_INCLUSIVE_ON: u64 = 2;
const NT_X86_XSTATE: usize = 0x202;

const _: () = assert!(size_of::<UserRegs>() == 216);
const _: () = assert!(size_of::<SockFilter>() == 8);
const _: () = assert!(offset_of!(libc::user, u_debugreg) == 848);

/// `struct ptrace_peeksiginfo_args`
#[repr(C)]
struct PeekSiginfoArgs {
    off: u64,
    flags: u32,
    nr: i32,
}
const _: () = assert!(size_of::<PeekSiginfoArgs>() == 16);

/// `struct ptrace_rseq_configuration`: where a thread registered its restartable sequences area.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rseq {
    /// Address of the area in the tracee.
    pub address: u64,
    /// Its size in bytes, as registered.
    pub size: u32,
    /// The signature that precedes every abort handler.
    pub signature: u32,
    /// Flags of the registration; none are defined yet.
    pub flags: u32,
    pad: u32,
}
const _: () = assert!(size_of::<Rseq>() == 24);

/// `struct seccomp_metadata`
#[repr(C)]
struct SeccompMetadata {
    filter_off: u64,
    flags: u64,
}
const _: () = assert!(size_of::<SeccompMetadata>() == 16);

/// What kind of system call stop a tracee is in, `op` of `struct ptrace_syscall_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyscallStop {
    /// Not a system call stop.
    None,
    /// Before the call.
    Entry,
    /// After the call.
    Exit,
    /// Stopped by a seccomp filter.
    Seccomp,
}

/// One ptrace request.
///
/// # Safety
/// `data` and `address` must be what `request` takes: where the kernel writes through one of them, it must point to writable
/// memory of the size that the request writes.
unsafe fn request(request: c_uint, tid: Pid, address: usize, data: *mut c_void) -> Result<c_long> {
    // SAFETY: the caller vouches for both pointers. The raw call is used because the C library's wrapper turns the PEEK
    // requests round.
    let result =
        unsafe { libc::syscall(libc::SYS_ptrace, c_long::from(request), c_long::from(tid.as_raw()), address, data) };
    Errno::result(result)
}

fn resume(how: c_uint, tid: Pid, signal: Option<i32>) -> Result<()> {
    let signal = usize::try_from(signal.unwrap_or(0)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `data` is a number for these requests; the kernel dereferences nothing.
    unsafe { request(how, tid, 0, std::ptr::without_provenance_mut(signal)) }.map(drop)
}

/// Lets a stopped tracee run, delivering `signal` (1 to 64) if it is in a signal-delivery stop.
pub fn cont(tid: Pid, signal: Option<i32>) -> Result<()> {
    resume(libc::PTRACE_CONT, tid, signal)
}

/// Lets a stopped tracee run up to the next entry or exit of a system call.
pub fn syscall(tid: Pid, signal: Option<i32>) -> Result<()> {
    resume(libc::PTRACE_SYSCALL, tid, signal)
}

/// Lets go of a stopped tracee.
pub fn detach(tid: Pid, signal: Option<i32>) -> Result<()> {
    resume(libc::PTRACE_DETACH, tid, signal)
}

/// Leaves a tracee in its group stop, able to report that the stop ended.
///
/// `EIO` when it is not in a group stop.
pub fn listen(tid: Pid) -> Result<()> {
    resume(libc::PTRACE_LISTEN, tid, None)
}

/// Bytes of the extended state that this processor and kernel have: CPUID, leaf 0xd (`arch/x86/kernel/fpu/xstate.c`, get_xsave_size_user).
#[must_use]
pub fn xstate_size() -> usize {
    // A virtual machine's host answers, which takes long.
    static SIZE: LazyLock<usize> = LazyLock::new(|| {
        // SAFETY: every x86-64 processor has CPUID, and one without this leaf answers for its last. Newer compilers know this.
        #[allow(unused_unsafe)]
        let leaf = unsafe { std::arch::x86_64::__cpuid_count(0xd, 0) };
        leaf.ebx as usize
    });
    *SIZE
}

/// The extended state (x87, SSE, AVX, PKRU ...) in the uncompacted XSAVE format, [`xstate_size`] bytes.
pub fn xstate(tid: Pid) -> Result<Vec<u8>> {
    let mut buffer = vec![0u8; xstate_size()];
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: `iov` describes a buffer of ours; the kernel writes at most iov_len bytes and stores the count in iov_len.
    unsafe { request(libc::PTRACE_GETREGSET, tid, NT_X86_XSTATE, from_mut(&mut iov).cast()) }?;
    buffer.truncate(iov.iov_len);
    Ok(buffer)
}

/// Sets the extended state from what [`xstate`] gave. `EINVAL` or `EFAULT` for a size or header that this CPU does not take.
pub fn set_xstate(tid: Pid, state: &[u8]) -> Result<()> {
    let mut iov = libc::iovec { iov_base: state.as_ptr().cast_mut().cast(), iov_len: state.len() };
    // SAFETY: SETREGSET only reads the buffer that `iov` describes.
    unsafe { request(libc::PTRACE_SETREGSET, tid, NT_X86_XSTATE, from_mut(&mut iov).cast()) }.map(drop)
}

/// The siginfo of the signal or event that the tracee is stopped by. `EINVAL` in a group stop.
pub fn siginfo(tid: Pid) -> Result<SigInfo> {
    let mut info = [0u8; 128];
    // SAFETY: GETSIGINFO writes one siginfo_t, 128 bytes.
    unsafe { request(libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr().cast()) }?;
    Ok(info)
}

/// The whole queue of pending signals, oldest first: the thread's own, or with `shared` the one of its process.
///
/// Nothing is dequeued.
pub fn peek_siginfo(tid: Pid, shared: bool) -> Result<Vec<SigInfo>> {
    const CHUNK: usize = 64;
    let mut queue = Vec::new();
    let mut chunk: Vec<SigInfo> = vec![[0; 128]; CHUNK];
    loop {
        let args = PeekSiginfoArgs {
            off: queue.len() as u64,
            flags: u32::from(shared), // PTRACE_PEEKSIGINFO_SHARED is 1
            nr: 64,
        };
        let address = from_ref(&args).expose_provenance();
        // SAFETY: `args` is read; `chunk` has room for the `nr` entries of 128 bytes that are asked for.
        let count = unsafe { request(libc::PTRACE_PEEKSIGINFO, tid, address, chunk.as_mut_ptr().cast()) }?;
        let count = usize::try_from(count).map_err(|_| Errno::EOVERFLOW)?;
        queue.extend(chunk.iter().take(count));
        if count < CHUNK {
            return Ok(queue);
        }
    }
}

/// The mask of blocked signals, signal 1 in bit 0; for a task inside sigsuspend(2) or ppoll(2) the one it returns to.
pub fn sigmask(tid: Pid) -> Result<u64> {
    let mut mask = 0u64;
    // SAFETY: GETSIGMASK writes the 8 bytes that `address` announces.
    unsafe { request(libc::PTRACE_GETSIGMASK, tid, size_of::<u64>(), from_mut(&mut mask).cast()) }?;
    Ok(mask)
}

/// Sets the mask of blocked signals. The kernel leaves SIGKILL and SIGSTOP out of it.
pub fn set_sigmask(tid: Pid, mask: u64) -> Result<()> {
    let mut mask = mask;
    // SAFETY: SETSIGMASK reads the 8 bytes that `address` announces.
    unsafe { request(libc::PTRACE_SETSIGMASK, tid, size_of::<u64>(), from_mut(&mut mask).cast()) }.map(drop)
}

/// The restartable sequences registration, `None` when there is none.
pub fn rseq(tid: Pid) -> Result<Option<Rseq>> {
    let mut rseq = Rseq::default();
    // SAFETY: the kernel writes at most the size that `address` announces.
    unsafe { request(libc::PTRACE_GET_RSEQ_CONFIGURATION, tid, size_of::<Rseq>(), from_mut(&mut rseq).cast()) }?;
    Ok((rseq.address != 0).then_some(rseq))
}

/// Filter number `index` of the tracee, 0 being the one installed first; `None` past the last, and when it has none.
///
/// `EACCES` for a tracer that lacks CAP_SYS_ADMIN or runs under seccomp itself.
pub fn seccomp_filter(tid: Pid, index: usize) -> Result<Option<Vec<SockFilter>>> {
    // SAFETY: a null `data` asks for the number of instructions only.
    let count = match unsafe { request(SECCOMP_GET_FILTER, tid, index, null_mut()) } {
        // EINVAL: the task is not in filter mode at all.
        Err(Errno::ENOENT | Errno::EINVAL) => return Ok(None),
        other => usize::try_from(other?).map_err(|_| Errno::EOVERFLOW)?,
    };
    let mut filter = vec![SockFilter { code: 0, jt: 0, jf: 0, k: 0 }; count];
    // SAFETY: the filters of a stopped task cannot be replaced, so the length just read is what is written.
    unsafe { request(SECCOMP_GET_FILTER, tid, index, filter.as_mut_ptr().cast()) }?;
    Ok(Some(filter))
}

/// The flags filter number `index` was installed with (`SECCOMP_FILTER_FLAG_LOG` is the only one kept).
pub fn seccomp_filter_flags(tid: Pid, index: usize) -> Result<u64> {
    let mut metadata = SeccompMetadata { filter_off: index as u64, flags: 0 };
    // SAFETY: reads and writes the size that `address` announces.
    unsafe { request(SECCOMP_GET_METADATA, tid, size_of::<SeccompMetadata>(), from_mut(&mut metadata).cast()) }?;
    Ok(metadata.flags)
}

/// `struct ptrace_sud_config`
#[repr(C)]
struct SudConfig {
    mode: u64,
    selector: u64,
    offset: u64,
    len: u64,
}
const _: () = assert!(size_of::<SudConfig>() == 32);

/// System calls of a thread that become signals, as the kernel keeps it (`struct syscall_user_dispatch`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallDispatch {
    /// The byte that allows or blocks, 0 for none.
    pub selector: u64,
    /// Where the range begins in which calls are always allowed.
    pub offset: u64,
    /// Its length; a range that wraps around the end of the address space is the rest of one that is blocked.
    pub length: u64,
}

/// Sets and switches on syscall user dispatch. `EINVAL` for a range that cannot be, `EFAULT` for a selector of the kernel's.
pub fn set_syscall_dispatch(tid: Pid, dispatch: SyscallDispatch) -> Result<()> {
    let SyscallDispatch { selector, offset, length } = dispatch;
    let config = if offset != 0 && offset.checked_add(length).is_none() {
        // The kernel takes it only as it was asked for: the range that is blocked.
        let (offset, len) = (offset.wrapping_add(length), length.wrapping_neg());
        SudConfig { mode: PR_SYS_DISPATCH_INCLUSIVE_ON, selector, offset, len }
    } else {
        SudConfig { mode: PR_SYS_DISPATCH_ON, selector, offset, len: length }
    };
    let config = from_ref(&config).cast_mut().cast();
    // SAFETY: the kernel reads the 32 bytes that `address` announces.
    unsafe { request(SET_SYSCALL_USER_DISPATCH_CONFIG, tid, size_of::<SudConfig>(), config) }.map(drop)
}

/// Which system call stop the tracee is in.
pub fn syscall_stop(tid: Pid) -> Result<SyscallStop> {
    // Only the first byte is wanted: the kernel copies as much as asked for.
    let mut op = 0u8;
    // SAFETY: at most `address` bytes are written.
    unsafe { request(libc::PTRACE_GET_SYSCALL_INFO, tid, size_of::<u8>(), from_mut(&mut op).cast()) }?;
    Ok(match op {
        1 => SyscallStop::Entry,
        2 => SyscallStop::Exit,
        3 => SyscallStop::Seccomp,
        _ => SyscallStop::None,
    })
}

fn debug_register_offset(index: usize) -> usize {
    offset_of!(libc::user, u_debugreg) + index * size_of::<u64>()
}

/// DR0 to DR7 as a tracer set them; 4 and 5 do not exist and read 0. Where DR7 enables none, the others mean nothing and read 0 too:
/// six requests a thread would be half of all that a capture makes.
pub fn debug_registers(tid: Pid) -> Result<[u64; 8]> {
    let peek = |index: usize| {
        let mut value = 0u64;
        // SAFETY: the raw PEEKUSER writes one word to `data`.
        unsafe { request(libc::PTRACE_PEEKUSER, tid, debug_register_offset(index), from_mut(&mut value).cast()) }?;
        Ok(value)
    };
    let mut registers = [0u64; 8];
    registers[7] = peek(7)?;
    if registers[7] != 0 {
        for index in [0, 1, 2, 3, 6] {
            registers[index] = peek(index)?;
        }
    }
    Ok(registers)
}

/// Sets DR0 to DR7; 4 and 5 are ignored. `EINVAL` for a breakpoint in kernel addresses or a combination the CPU has not.
pub fn set_debug_registers(tid: Pid, registers: &[u64; 8]) -> Result<()> {
    let poke = |index: usize, value: u64| {
        let value = usize::try_from(value).map_err(|_| Errno::EOVERFLOW)?;
        let data = std::ptr::without_provenance_mut(value);
        // SAFETY: `data` is a number for POKEUSER.
        unsafe { request(libc::PTRACE_POKEUSER, tid, debug_register_offset(index), data) }
    };
    // Control first and last: an address may only be changed freely while nothing is enabled.
    poke(7, 0)?;
    for index in [0, 1, 2, 3, 6] {
        poke(index, registers[index])?;
    }
    poke(7, registers[7]).map(drop)
}

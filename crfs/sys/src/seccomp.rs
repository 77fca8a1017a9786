//! seccomp(2) of the calling thread: filters and strict mode.
//!
//! Source: seccomp(2), include/uapi/linux/seccomp.h, v6.18.

use libc::c_long;
use nix::Result;
use nix::errno::Errno;

pub use crate::ptrace::SockFilter;

/// `BPF_LD | BPF_W | BPF_ABS` of the system call's number, the first word of `struct seccomp_data`.
const LOAD_NUMBER: SockFilter = SockFilter { code: 0x20, jt: 0, jf: 0, k: 0 };

/// `BPF_RET | BPF_K`
fn answer(k: u32) -> SockFilter {
    SockFilter { code: 0x06, jt: 0, jf: 0, k }
}

/// `BPF_JMP | BPF_JEQ | BPF_K`, which leaves out the next instruction for any other call.
fn if_it_is(number: c_long) -> SockFilter {
    // Numbers of calls are small.
    SockFilter { code: 0x15, jt: 0, jf: 1, k: u32::try_from(number).unwrap_or(u32::MAX) }
}

/// A filter that answers one call with an errno and lets all others through.
#[must_use]
pub fn deny(number: c_long, errno: u16) -> Vec<SockFilter> {
    let refuse = answer(libc::SECCOMP_RET_ERRNO | u32::from(errno));
    vec![LOAD_NUMBER, if_it_is(number), refuse, answer(libc::SECCOMP_RET_ALLOW)]
}

/// A filter that kills the process for any call but these.
#[must_use]
pub fn allow_only(numbers: &[c_long]) -> Vec<SockFilter> {
    let mut filter = vec![LOAD_NUMBER];
    for &number in numbers {
        filter.extend([if_it_is(number), answer(libc::SECCOMP_RET_ALLOW)]);
    }
    filter.push(answer(libc::SECCOMP_RET_KILL_PROCESS));
    filter
}

/// Puts a filter on top of those in force, with `SECCOMP_FILTER_FLAG_*`. With `SECCOMP_FILTER_FLAG_TSYNC` the result is 0, or
/// the id of a thread whose filters are not among the caller's; with `SECCOMP_FILTER_FLAG_NEW_LISTENER` it is a descriptor.
///
/// `EACCES` without no_new_privs and CAP_SYS_ADMIN.
pub fn install(filter: &[SockFilter], flags: u64) -> Result<i32> {
    let len = u16::try_from(filter.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions at `filter`.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    i32::try_from(Errno::result(result)?).map_err(|_| Errno::EOVERFLOW)
}

/// Leaves the calling thread read(2), write(2), exit(2) and sigreturn(2).
pub fn set_strict() -> Result<()> {
    // SAFETY: numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT, 0, 0, 0) }).map(drop)
}

/// Ends the calling thread by exit(2), which strict mode allows, unlike exit_group(2) by which the C library ends a process.
pub fn exit_thread(code: i32) -> ! {
    loop {
        // SAFETY: does not return.
        unsafe { libc::syscall(libc::SYS_exit, code) };
    }
}

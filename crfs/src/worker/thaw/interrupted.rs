//! Which threads wait in a call that answers EINTR when it is interrupted by a freeze.
//!
//! Found by trying the blocking calls one after the other. The others answer one of the `ERESTART` codes, which the kernel turns
//! into a new start by itself. Source: signal(7), "Interruption of system calls and library functions by stop signals".

use crfs_sys::HostPid;
use std::fs;

/// Calls that answer EINTR.
const ALWAYS: [i64; 8] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_io_uring_enter,
    libc::SYS_io_getevents,
];

/// Calls that answer EINTR on a socket with SO_RCVTIMEO or SO_SNDTIMEO (`sock_intr_errno`, `include/net/sock.h`). The first argument
/// is the socket.
const ON_SOCKETS: [i64; 13] = [
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_connect,
];

/// The threads of these processes that are in one of the calls. A thread that ends meanwhile is left out.
pub(super) fn threads(pids: &[i32]) -> Vec<HostPid> {
    pids.iter().flat_map(|&pid| threads_of(pid)).collect()
}

fn threads_of(pid: i32) -> Vec<HostPid> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let tids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    tids.filter(|&tid| is_interrupted(pid, tid)).map(HostPid::new).collect()
}

fn is_interrupted(pid: i32, tid: i32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")) else { return false };
    // "running", or "-1 SP PC", or "NUMBER ARG1 ... ARG6 SP PC" with hexadecimal arguments.
    let mut words = text.split_whitespace();
    let Some(number) = words.next().and_then(|word| word.parse::<i64>().ok()) else { return false };
    ALWAYS.contains(&number) || (ON_SOCKETS.contains(&number) && words.next().is_some_and(|fd| is_socket(pid, tid, fd)))
}

fn is_socket(pid: i32, tid: i32, argument: &str) -> bool {
    let Some(fd) = argument.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok()) else { return false };
    // A descriptor is an int: the upper half of the register means nothing.
    let fd = fd & u64::from(u32::MAX);
    // Through the thread, since threads need not share their descriptors.
    fs::read_link(format!("/proc/{pid}/task/{tid}/fd/{fd}"))
        .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
}

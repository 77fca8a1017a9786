//! Which threads wait in a call that answers EINTR when it is interrupted by a freeze, or would begin again in full.

use crate::resource::registers::shorten;
use crate::resource::registers::syscalls::{EINTR_ALWAYS, EINTR_ON_SOCKETS};
use crfs_sys::HostPid;
use std::fs;

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
    let number = text.split_whitespace().next().and_then(|word| word.parse::<i64>().ok());
    number.is_some_and(|number| EINTR_ALWAYS.contains(&number) || shorten::begins_in_full(number))
        || on_socket(pid, tid, &text).is_some()
}

/// The number of the call that a thread waits in, if it is one that a socket limits. `text` is what its file `syscall` in /proc says.
pub(in crate::worker) fn on_socket(pid: i32, tid: i32, text: &str) -> Option<i64> {
    // "running", or "-1 SP PC", or "NUMBER ARG1 ... ARG6 SP PC" with hexadecimal arguments.
    let mut words = text.split_whitespace();
    let number = words.next()?.parse().ok().filter(|number| EINTR_ON_SOCKETS.contains(number))?;
    is_socket(pid, tid, words.next()?).then_some(number)
}

fn is_socket(pid: i32, tid: i32, argument: &str) -> bool {
    let Some(fd) = argument.strip_prefix("0x").and_then(|hex| u64::from_str_radix(hex, 16).ok()) else { return false };
    // A descriptor is an int: the upper half of the register means nothing.
    let fd = fd & u64::from(u32::MAX);
    // Through the thread, since threads need not share their descriptors.
    fs::read_link(format!("/proc/{pid}/task/{tid}/fd/{fd}"))
        .is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(b"socket:"))
}

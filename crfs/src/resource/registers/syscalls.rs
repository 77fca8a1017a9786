//! System calls of x86-64 by number, and what the kernel does to the ones that are interrupted.

use std::sync::LazyLock;

/// `arch/x86/entry/syscalls/syscall_64.tbl`, v6.18: number and name a line.
static TABLE: LazyLock<Vec<Option<&'static str>>> = LazyLock::new(|| {
    let mut names = Vec::new();
    for line in include_str!("syscalls.x86_64").lines() {
        if let Some((number, name)) = line.split_once(' ')
            && let Ok(number) = number.parse::<usize>()
        {
            names.resize(names.len().max(number + 1), None);
            names[number] = Some(name);
        }
    }
    names
});

/// The call's name; `syscall_NUMBER` for one that is newer than the table.
#[must_use]
pub fn name(number: u64) -> String {
    let known = usize::try_from(number).ok().and_then(|index| TABLE.get(index).copied().flatten());
    known.map_or_else(|| format!("syscall_{number}"), ToOwned::to_owned)
}

/// Calls that return EINTR to the program when their thread is merely frozen or stopped by a tracer, although no signal handler runs.
/// All others are restarted by the kernel. Found by trying the blocking calls one after the other on v6.18; signal(7),
/// "Interruption of system calls and library functions by stop signals".
pub(crate) const EINTR_ALWAYS: [libc::c_long; 8] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_io_uring_enter,
    libc::SYS_io_getevents,
];

/// Calls that do so on a socket with SO_RCVTIMEO or SO_SNDTIMEO (`sock_intr_errno`, `include/net/sock.h`). The first argument is the
/// socket.
pub(crate) const EINTR_ON_SOCKETS: [libc::c_long; 13] = [
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

/// The option of the socket that limits a wait in the call of this number (SO_RCVTIMEO or SO_SNDTIMEO); None for any other call.
#[must_use]
pub fn socket_limit(call: i64) -> Option<i32> {
    match call {
        libc::SYS_write
        | libc::SYS_writev
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg
        | libc::SYS_connect => Some(libc::SO_SNDTIMEO),
        _ if EINTR_ON_SOCKETS.contains(&call) => Some(libc::SO_RCVTIMEO),
        _ => None,
    }
}

/// Whether the call is one of these.
#[must_use]
pub fn leaks_eintr(number: u64) -> bool {
    let is = |call: &libc::c_long| u64::try_from(*call) == Ok(number);
    EINTR_ALWAYS.iter().chain(&EINTR_ON_SOCKETS).any(is)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_where_libc_has_them() {
        for (number, expected) in [
            (libc::SYS_read, "read"),
            (libc::SYS_poll, "poll"),
            (libc::SYS_nanosleep, "nanosleep"),
            (libc::SYS_futex, "futex"),
            (libc::SYS_clock_nanosleep, "clock_nanosleep"),
            (libc::SYS_epoll_pwait2, "epoll_pwait2"),
            (libc::SYS_mseal, "mseal"),
        ] {
            assert_eq!(name(u64::try_from(number).expect("positive")), expected);
        }
        assert_eq!(name(4000), "syscall_4000");
        // The table has a hole between the old calls and those shared by all architectures.
        assert_eq!(name(400), "syscall_400");
    }

    #[test]
    fn who_sends_waits_by_another_limit_than_who_receives() {
        let limits = [libc::SYS_connect, libc::SYS_accept, libc::SYS_read, libc::SYS_close].map(socket_limit);
        assert_eq!(limits, [Some(libc::SO_SNDTIMEO), Some(libc::SO_RCVTIMEO), Some(libc::SO_RCVTIMEO), None]);
    }

    #[test]
    fn only_calls_that_lose_nothing_are_entered_again() {
        assert!(leaks_eintr(232) && leaks_eintr(128));
        // close(2) has let go of its descriptor by the time it returns EINTR.
        assert!(!leaks_eintr(3) && !leaks_eintr(35));
    }
}

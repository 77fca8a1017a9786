//! Waits on a socket with SO_RCVTIMEO or SO_SNDTIMEO: they go on with the time that remained.
//!
//! Such a call takes its time limit from the socket when it begins, and forgets it when it is interrupted. So the option is put down to what
//! remained for the moment in which the call begins again. Nobody sees that: the container's cgroup is thawed already, since nothing
//! runs in a frozen one, while all threads but this one stand in ptrace stops; and this one is stopped should its call end at once. When it
//! sleeps in the call, the option is what it was. One after the other, since several may wait on one socket.
//!
//! A thread that sleeps cannot be detached without being interrupted. It is let go of by the end of this worker, which wakes nobody.
//!
//! Source: `sock_rcvtimeo` in include/net/sock.h, `sock_set_timeout` in net/core/sock.c, `exit_ptrace` in kernel/ptrace.c, v6.18; ptrace(2).

use super::{EINTR, RESTART, STOP_DEADLINE};
use crate::failure::Failure;
use crate::freezer::Cgroup;
use crate::resource::registers::syscalls;
use crfs_sys::socket_options::{get, set};
use crfs_sys::{pidfd, time};
use crfs_tracee::{Error, HostPid, Stop, Stopped, Tracee, UserRegs, Waited, stop_all};
use image_format::Timespec;
use libc::SOL_SOCKET;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// For a call to begin. It may have to wait for another that has the socket's lock.
const BEGINS: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_micros(50);
/// `struct timeval`
type Limit = [u8; 16];

/// A call that is to begin again for the time that remained.
#[derive(Debug)]
pub(super) struct SocketWait {
    tid: HostPid,
    fd: i32,
    /// SO_RCVTIMEO or SO_SNDTIMEO.
    option: i32,
    /// CLOCK_MONOTONIC.
    end_ns: i128,
}

impl SocketWait {
    /// Of a thread that was interrupted in a call which a socket limits; None for any other, and for one that job control has stopped.
    pub(super) fn of(tracee: &Tracee<Stopped>, regs: &UserRegs, left: Timespec, now_ns: i64) -> Option<Self> {
        let option = syscalls::socket_limit(regs.orig_rax.cast_signed())?;
        let interrupted = matches!(regs.rax, EINTR | RESTART) && tracee.stop().group_stop().is_none();
        // A descriptor is an int: the upper half of the register means nothing.
        let fd = i32::try_from(regs.rdi & 0xffff_ffff).ok()?;
        interrupted.then(|| Self { tid: tracee.tid(), fd, option, end_ns: left.ns() + i128::from(now_ns) })
    }

    fn socket(&self) -> nix::Result<OwnedFd> {
        let task = pidfd::open_any(self.tid.pid())?;
        pidfd::getfd(task.as_fd(), self.fd)
    }

    /// What remains, as the option takes it. None at all would be a wait without end.
    fn left(&self) -> nix::Result<Limit> {
        let now = time::clock_ns(libc::CLOCK_MONOTONIC)?;
        let us = i64::try_from((self.end_ns - i128::from(now)) / 1000).unwrap_or(i64::MAX).max(1);
        let mut limit = Limit::default();
        limit[..8].copy_from_slice(&(us / 1_000_000).to_ne_bytes());
        limit[8..].copy_from_slice(&(us % 1_000_000).to_ne_bytes());
        Ok(limit)
    }
}

/// Stops all threads but those that are stopped already, if there is a wait to begin. Call it while the container is frozen.
///
/// # Errors
/// When the threads cannot be listed.
pub(super) fn hold(
    waits: &[SocketWait],
    cgroup: &Cgroup,
    stopped: impl Iterator<Item = HostPid>,
) -> Result<Vec<Tracee<Stopped>>, Failure> {
    if waits.is_empty() {
        return Ok(Vec::new());
    }
    let stopped: BTreeSet<HostPid> = stopped.collect();
    let others = cgroup.threads()?.into_iter().map(HostPid::new).filter(|tid| !stopped.contains(tid));
    // Who is late waits in the kernel and runs nothing.
    Ok(stop_all(others.collect(), Instant::now() + STOP_DEADLINE).stopped)
}

/// Lets the calls begin, and then all threads go. Call it when the container's cgroup has been thawed.
pub(super) fn begin(waits: Vec<SocketWait>, mut stopped: Vec<Tracee<Stopped>>, notes: &mut Vec<String>) {
    for wait in waits {
        let Some(place) = stopped.iter().position(|tracee| tracee.tid() == wait.tid) else { continue };
        match shortened(&wait, stopped.swap_remove(place)) {
            Ok(tracee) => stopped.extend(tracee),
            Err(reason) => notes.push(format!("thread {}: its wait on a socket: {reason}", wait.tid)),
        }
    }
    for tracee in stopped {
        // One that was killed meanwhile is gone.
        let _ = match tracee.stop() {
            Stop::Signal(signal) => tracee.detach_with(signal),
            _ => tracee.detach(),
        };
    }
}

/// Lets one call begin with what remains for it. Returns the thread if it stands still.
fn shortened(wait: &SocketWait, tracee: Tracee<Stopped>) -> Result<Option<Tracee<Stopped>>, String> {
    let mut before = Limit::default();
    let mut lower = || -> nix::Result<OwnedFd> {
        let socket = wait.socket()?;
        get(socket.as_fd(), SOL_SOCKET, wait.option, &mut before)?;
        set(socket.as_fd(), SOL_SOCKET, wait.option, &wait.left()?)?;
        Ok(socket)
    };
    let socket = match lower() {
        Ok(socket) => socket,
        Err(errno) => {
            let _ = tracee.detach();
            return Err(format!("it starts again in full: {}", errno.desc()));
        }
    };
    let begun = sleeps_or_stops(tracee);
    set(socket.as_fd(), SOL_SOCKET, wait.option, &before)
        .map_err(|errno| format!("the time limit stays as low as it was put: {}", errno.desc()))?;
    match begun {
        Err(error) if !error.is_gone() => Err(error.to_string()),
        other => Ok(other.unwrap_or(None)),
    }
}

/// Lets a thread run into its call until it sleeps there; returned is one that has stopped.
fn sleeps_or_stops(tracee: Tracee<Stopped>) -> Result<Option<Tracee<Stopped>>, Error> {
    let (tid, deadline) = (tracee.tid(), Instant::now() + BEGINS);
    let mut running = match tracee.syscall()?.wait(deadline)? {
        Waited::Stopped(tracee) if matches!(tracee.stop(), Stop::SyscallEntry) => tracee.syscall()?,
        Waited::Stopped(tracee) => return Ok(Some(tracee)),
        Waited::Gone(_) | Waited::Running(_) => return Ok(None),
    };
    loop {
        running = match running.wait(Instant::now())? {
            Waited::Stopped(tracee) => return Ok(Some(tracee)),
            Waited::Gone(_) => return Ok(None),
            // Until it has the time limit it may wait for a lock, which is another state.
            Waited::Running(_) if sleeps(tid) || Instant::now() >= deadline => return Ok(None),
            Waited::Running(running) => running,
        };
        std::thread::sleep(PAUSE);
    }
}

/// Whether the thread is in a sleep that a signal ends.
fn sleeps(tid: HostPid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

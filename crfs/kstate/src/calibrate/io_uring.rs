//! A ring of the calling thread's own: nobody can fill one from outside.

use std::os::fd::{AsFd, AsRawFd};

use crfs_sys::io_uring::{Ring, SETUP_SINGLE_ISSUER, Shape};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{gettid, pipe2, write};

use super::Trouble;
use super::checks::same;
use super::scene::{Roles, Scene};
use crate::io_uring::{IoRequests, IoUring};
use crate::state::KernelState;
use crate::tasks::Task;

/// IORING_SETUP_SUBMIT_ALL, which makes no difference here, and one page of each part.
const SHAPE: Shape = Shape { flags: 1 << 7, sq_entries: 4, cq_entries: 16, rings: 4096, sqes: 4096, sqe: 64 };
/// IORING_SETUP_CQSIZE, which a number of completions asks for.
const CQSIZE: u32 = 1 << 3;
/// Whether tasks that have used a ring are told from others.
pub(super) fn check_task(state: &KernelState, _: &Scene, roles: &Roles) -> Result<(), Trouble> {
    let _ring = ring(SHAPE)?;
    same("a task with a ring", state.uses_io_uring(&Task::caller(0))?, true)?;
    same("a task without", state.uses_io_uring(&roles.bare)?, false)
}

/// A ring that has come some way, and a request that waits for a pipe.
pub(super) fn check(state: &KernelState, _: &Scene, roles: &Roles) -> Result<(), Trouble> {
    let failed = |what: &'static str| move |errno: Errno| Trouble::Wrong(format!("{what}: {}", errno.desc()));
    let ring = ring(SHAPE)?;
    ring.advance(23, 21).map_err(failed("requests of nothing"))?;
    let (caller, fd) = (Task::caller(0), ring.as_fd().as_raw_fd());
    let expected = IoUring {
        flags: SHAPE.flags | CQSIZE,
        sq_entries: SHAPE.sq_entries,
        cq_entries: SHAPE.cq_entries,
        submitted: 23,
        completed: 21,
        registered: Vec::new(),
        has_overflown: false,
        issuer: 0,
    };
    same("a ring", state.io_uring(&caller, fd)?, expected.clone())?;
    let before = state.io_requests(&caller)?;
    same("requests of a task without", state.io_requests(&roles.bare)?, IoRequests::default())?;
    let (read, written) = pipe2(OFlag::O_CLOEXEC).map_err(failed("pipe2"))?;
    ring.poll(read.as_fd(), libc::POLLIN.unsigned_abs(), 0).map_err(failed("a request"))?;
    let waiting = IoRequests { under_way: before.under_way + 1, ..before };
    same("a request under way", state.io_requests(&caller)?, waiting)?;
    same("a ring with one", state.io_uring(&caller, fd)?, IoUring { submitted: 24, ..expected.clone() })?;
    write(&written, b"1").map_err(failed("write"))?;
    // What has completed is told to the task when it next enters the kernel.
    same("completions", ring.ends(), (24, 22))?;
    same("no request under way", state.io_requests(&caller)?, before)?;
    same(
        "a ring with nothing to do",
        state.io_uring(&caller, fd)?,
        IoUring { submitted: 24, completed: 22, ..expected },
    )?;
    let own = self::ring(Shape { flags: SETUP_SINGLE_ISSUER, ..SHAPE })?;
    let own = state.io_uring(&caller, own.as_fd().as_raw_fd())?;
    same("whose a ring is", state.io_uring_issuer(&own)?, gettid().as_raw().unsigned_abs())
}

fn ring(shape: Shape) -> Result<Ring, Trouble> {
    Ring::new(shape).map_err(|errno| match errno {
        Errno::ENOSYS => Trouble::Absent("this kernel has no io_uring".to_owned()),
        Errno::EPERM => Trouble::Absent("io_uring is switched off (kernel.io_uring_disabled)".to_owned()),
        errno => Trouble::Wrong(format!("io_uring_setup: {}", errno.desc())),
    })
}

//! Locks: the parent holds one of each kind; a child waits for one of them and gets it in the end, and asks in each round whether the
//! others still hold.

use anyhow::{Context, Result, ensure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::lock::flock;
use crfs_tests::victim::{self, Stage, suffixed};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;

fn range(kind: i32, start: i64, length: i64) -> libc::flock {
    libc::flock { l_type: i16::try_from(kind).unwrap_or(0), l_whence: 0, l_start: start, l_len: length, l_pid: 0 }
}

/// Whether a range could not be locked by a new description.
fn held(file: &File, kind: i32, start: i64, length: i64) -> Result<bool> {
    let mut asked = range(kind, start, length);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked))?;
    Ok(i32::from(asked.l_type) != libc::F_UNLCK)
}

fn run(stage: &mut Stage) -> Result<()> {
    let path = |name| suffixed(stage.path(), name);
    let (ranges, flocked) = (path("ranges"), path("flocked"));
    let create = |path| File::options().read(true).write(true).create(true).truncate(true).open(path);
    let posix = create(&ranges)?;
    fcntl(&posix, FcntlArg::F_SETLK(&range(libc::F_WRLCK, 100, 50)))?;
    fcntl(&posix, FcntlArg::F_SETLK(&range(libc::F_RDLCK, 1 << 40, 0)))?;
    let description = create(&ranges)?;
    fcntl(&description, FcntlArg::F_OFD_SETLK(&range(libc::F_RDLCK, 0, 10)))?;
    let whole = create(&flocked)?;
    flock(whole.as_fd(), libc::LOCK_EX)?;
    // Even what has no path can be locked.
    let (pipe, _into) = std::io::pipe()?;
    flock(pipe.as_fd(), libc::LOCK_EX)?;
    let other = create(&ranges)?;
    let child = match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => child,
        // Waits for the POSIX lock of the parent, which the child does not have.
        Forked::Child => exit_now(i32::from(fcntl(&other, FcntlArg::F_SETLKW(&range(libc::F_WRLCK, 149, 1))).is_err())),
    };
    loop {
        let (read, write) = (libc::F_RDLCK, libc::F_WRLCK);
        for (kind, start, length, expected) in [
            (read, 100, 1, true),
            (read, 150, 1, false),
            (write, (1 << 40) + 5, 1, true),
            (read, (1 << 40) + 5, 1, false),
            (write, 9, 1, true),
            (read, 9, 1, false),
            (write, 10, 90, false),
        ] {
            let held = held(&other, kind, start, length)?;
            ensure!(held == expected, "bytes {start} to {} by {kind}: held {held}", start + length);
        }
        let shared = flock(File::open(&flocked)?.as_fd(), libc::LOCK_SH);
        ensure!(shared == Err(Errno::EWOULDBLOCK), "flock: {shared:?}");
        let again = File::open(format!("/proc/self/fd/{}", pipe.as_raw_fd()))?;
        let shared = flock(again.as_fd(), libc::LOCK_SH);
        ensure!(shared == Err(Errno::EWOULDBLOCK), "flock of a pipe: {shared:?}");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    let early = waitpid(child, Some(nix::sys::wait::WaitPidFlag::WNOHANG))?;
    ensure!(early == WaitStatus::StillAlive, "the child did not wait: {early:?}");
    fcntl(&posix, FcntlArg::F_SETLK(&range(libc::F_UNLCK, 100, 50)))?;
    ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "the child failed");
    flock(whole.as_fd(), libc::LOCK_UN)?;
    flock(File::open(&flocked)?.as_fd(), libc::LOCK_EX).context("it stays locked")?;
    // Closing any descriptor of the file lets go of a process's locks.
    drop(other);
    ensure!(!held(&description, libc::F_WRLCK, 1 << 40, 1)?, "a POSIX lock outlives a close");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

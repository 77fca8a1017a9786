//! pidfds: of a child that lives, of one that has ended, of one that was waited for, of this process.

use anyhow::{Context, Result, ensure};
use crfs_sys::pidfd;
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpid};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, ExitCode, Stdio};

struct Held {
    fd: OwnedFd,
    pid: i32,
    has_ended: bool,
}

impl Held {
    fn check(&self) -> Result<()> {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()))?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:\t")).context("no pidfd")?;
        ensure!(pid == self.pid.to_string(), "it names process {pid} and not {}", self.pid);
        let mut ready = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut ready, PollTimeout::ZERO)? > 0;
        ensure!(ready == self.has_ended, "the end of {pid} is told: {ready}");
        pidfd::send_signal(self.fd.as_fd(), 0).with_context(|| format!("process {pid} cannot be signalled"))
    }
}

/// A child by the words of a shell.
fn child(script: &str) -> Result<(Pid, OwnedFd)> {
    let child = Command::new("sh").args(["-c", script]).stdin(Stdio::null()).spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    Ok((pid, pidfd::open(pid, false)?))
}

fn run(stage: &mut Stage) -> Result<()> {
    let (living, fd) = child("exec sleep 1000")?;
    victim::wait_until_asleep(living.as_raw().cast_unsigned())?;
    let living = Held { fd, pid: living.as_raw(), has_ended: false };
    let (zombie, fd) = child("exit 3")?;
    waitid(Id::Pid(zombie), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    let zombie = Held { fd, pid: zombie.as_raw(), has_ended: true };
    let (gone, past) = child("exit 4")?;
    waitid(Id::Pid(gone), WaitPidFlag::WEXITED)?;
    let own = Held { fd: pidfd::open(getpid(), true)?, pid: getpid().as_raw(), has_ended: false };
    fcntl(&own.fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    loop {
        for held in [&living, &zombie, &own] {
            held.check()?;
        }
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", past.as_raw_fd()))?;
        ensure!(text.contains("Pid:\t-1\n"), "one that was waited for is told as {text}");
        let mut ready = [PollFd::new(past.as_fd(), PollFlags::POLLIN)];
        ensure!(poll(&mut ready, PollTimeout::ZERO)? > 0, "the end of one that was waited for is not told");
        ensure!(pidfd::send_signal(past.as_fd(), 0) == Err(Errno::ESRCH), "one that was waited for can be signalled");
        let flags = OFlag::from_bits_retain(fcntl(&own.fd, FcntlArg::F_GETFL)?);
        ensure!(flags.contains(OFlag::O_NONBLOCK | OFlag::O_EXCL), "the flags are {flags:?}");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    pidfd::send_signal(living.fd.as_fd(), libc::SIGKILL)?;
    let ended = waitid(Id::PIDFd(living.fd.as_fd()), WaitPidFlag::WEXITED)?;
    ensure!(matches!(ended, WaitStatus::Signaled(..)), "the living one ended so: {ended:?}");
    let ended = waitid(Id::PIDFd(zombie.fd.as_fd()), WaitPidFlag::WEXITED)?;
    ensure!(matches!(ended, WaitStatus::Exited(_, 3)), "the zombie ended so: {ended:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

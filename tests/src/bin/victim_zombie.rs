//! Children that died and were not waited for: how each died must stay known.

use anyhow::{Result, bail, ensure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgid, pause};
use std::process::ExitCode;

fn child(body: impl FnOnce() -> i32) -> Result<Pid> {
    match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => exit_now(body()),
        Forked::Parent { child, .. } => Ok(child),
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let exited = child(|| 7)?;
    let killed = child(|| {
        pause();
        0
    })?;
    kill(killed, Signal::SIGKILL)?;
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
    let group = getpgid(None)?;
    loop {
        ensure!(waitid(Id::Pid(exited), look)? == WaitStatus::Exited(exited, 7), "the child that exited is another");
        let signaled = WaitStatus::Signaled(killed, Signal::SIGKILL, false);
        ensure!(waitid(Id::Pid(killed), look)? == signaled, "the child that was killed is another");
        ensure!(getpgid(Some(exited))? == group, "the zombie's group is another");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // At the end only: a freeze that met an open file of /proc would be refused.
    for zombie in [exited, killed] {
        let status = std::fs::read_to_string(format!("/proc/{zombie}/status"))?;
        ensure!(status.contains("\nState:\tZ"), "{zombie} is no zombie");
    }
    for expected in [WaitStatus::Exited(exited, 7), WaitStatus::Signaled(killed, Signal::SIGKILL, false)] {
        ensure!(waitpid(expected.pid(), None)? == expected, "waiting gave something else than {expected:?}");
    }
    match waitpid(None::<Pid>, None) {
        Err(Errno::ECHILD) => Ok(()),
        other => bail!("there is another child: {other:?}"),
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

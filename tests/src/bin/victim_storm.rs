//! Processes that fork and exit as fast as they can: a freeze meets them while they are made and while they end.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

const FORKERS: usize = 3;
/// Words of the shared region: how many children each forker had, then these.
const WRONG: usize = 10;
const END: usize = 11;

fn fork() -> Result<Option<Pid>, Errno> {
    match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => Ok(None),
        Forked::Parent { child, .. } => Ok(Some(child)),
    }
}

/// Has one child after the other, every fifth of which leaves an orphan to the first process.
fn forker(shared: &Region, index: usize) -> Result<(), Errno> {
    while shared.get(END) == 0 {
        let number = shared.word(index).fetch_add(1, Ordering::Relaxed);
        let code = i32::try_from(number % 100).unwrap_or(0);
        let Some(child) = fork()? else {
            if number.is_multiple_of(5) && fork()?.is_none() {
                exit_now(0);
            }
            exit_now(code);
        };
        if waitpid(child, None)? != WaitStatus::Exited(child, code) {
            shared.word(WRONG).fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let mut forkers = Vec::new();
    for index in 0..FORKERS {
        match fork()? {
            None => exit_now(i32::from(forker(&shared, index).is_err())),
            Some(pid) => forkers.push(pid),
        }
    }
    loop {
        let before: Vec<u64> = (0..FORKERS).map(|index| shared.get(index)).collect();
        // Orphans are reaped on the way; the end of a forker is left alone, and found below.
        let all_went_on = || reap(&forkers).is_err() || (0..FORKERS).all(|index| shared.get(index) > before[index] + 3);
        victim::wait_until("every process to fork on", all_went_on)?;
        reap(&forkers)?;
        ensure!(shared.get(WRONG) == 0, "{} children ended otherwise than they did", shared.get(WRONG));
        if !stage.end_round()? {
            break;
        }
    }
    shared.set(END, 1);
    for forker in forkers {
        ensure!(waitpid(forker, None)? == WaitStatus::Exited(forker, 0), "a forker failed");
    }
    Ok(())
}

/// Waits for all that has ended, which must be no forker.
fn reap(forkers: &[Pid]) -> Result<()> {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Some(pid) = waitid(Id::All, look)?.pid() {
        ensure!(!forkers.contains(&pid), "a forker ended early");
        waitpid(pid, None)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

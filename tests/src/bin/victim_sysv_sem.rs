//! System V semaphores: a child waits in semop(2) for each round, another holds adjustments (SEM_UNDO) that its end takes back.

use anyhow::{Result, ensure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::sysv::{
    change_semaphore, make_semaphores, remove_semaphores, semaphore_values, set_semaphore_values, take_semaphore,
};
use crfs_tests::victim::{self, Stage};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::process::ExitCode;

const COUNT: usize = 5;
/// What the holder takes and gives, with the values before.
const HELD: [(u16, i16); 2] = [(0, -3), (1, 4)];
/// Raised by the parent and taken by the waiting child, which raises the other.
const ASK: u16 = 2;
const ANSWER: u16 = 3;
/// Taken at once by the holder to end.
const END: u16 = 4;

fn fork(body: impl FnOnce() -> nix::Result<()>) -> Result<Pid> {
    Ok(match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => child,
        Forked::Child => exit_now(i32::from(body().is_err())),
    })
}

fn run(stage: &mut Stage) -> Result<()> {
    let set = make_semaphores(0x5e3a, COUNT, 0o600)?;
    set_semaphore_values(set, &[3, 30_000, 0, 0, 0])?;
    let holder = fork(|| {
        HELD.iter().try_for_each(|&(index, change)| change_semaphore(set, index, change, true))?;
        take_semaphore(set, END)
    })?;
    let waiter = fork(|| {
        loop {
            take_semaphore(set, ASK)?;
            change_semaphore(set, ANSWER, 1, false)?;
        }
    })?;
    victim::wait_until("the holder", || semaphore_values(set, COUNT).is_ok_and(|values| values[..2] == [0, 30_004]))?;
    loop {
        change_semaphore(set, ASK, 1, false)?;
        take_semaphore(set, ANSWER)?;
        let values = semaphore_values(set, COUNT)?;
        ensure!(values == [0, 30_004, 0, 0, 0], "the values are {values:?}");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    change_semaphore(set, END, 1, false)?;
    ensure!(waitpid(holder, None)? == WaitStatus::Exited(holder, 0), "the holder failed");
    let values = semaphore_values(set, COUNT)?;
    ensure!(values == [3, 30_000, 0, 0, 0], "after the holder's end the values are {values:?}");
    nix::sys::signal::kill(waiter, nix::sys::signal::Signal::SIGKILL)?;
    waitpid(waiter, None)?;
    remove_semaphores(set)?;
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

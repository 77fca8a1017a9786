//! A hundred processes: children and grandchildren, some with sessions and groups of their own, each checking who it is.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgrp, getpid, getppid, getsid, setpgid, setsid};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

const BRANCH: usize = 10;
/// Words of the shared region: a counter each process, then the word that says stop.
const STOP: usize = 1024;

fn identity() -> Result<[Pid; 4]> {
    Ok([getpid(), getppid(), getpgrp(), getsid(None)?])
}

fn fork() -> Result<Option<Pid>> {
    match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => Ok(None),
        Forked::Parent { child, .. } => Ok(Some(child)),
    }
}

/// A process of the tree: takes its place, makes its children, counts until told to stop, and waits for its children.
fn member(shared: &Region, index: usize) -> Result<()> {
    match index % 4 {
        1 => drop(setsid()?),
        2 => setpgid(Pid::from_raw(0), Pid::from_raw(0))?,
        _ => {}
    }
    let mut children = Vec::new();
    if index.is_multiple_of(BRANCH) {
        for child in index + 1..index + BRANCH {
            match fork()? {
                None => exit_now(i32::from(member(shared, child).is_err())),
                Some(pid) => children.push(pid),
            }
        }
    }
    let identity_then = identity()?;
    while shared.get(STOP) == 0 {
        ensure!(identity()? == identity_then, "process {index} is another");
        shared.word(index).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
    }
    reap(&children)
}

fn reap(children: &[Pid]) -> Result<()> {
    for &child in children {
        ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "child {child} failed");
    }
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let count: usize = stage.arguments().first().map_or(Ok(100), |n| n.parse())?;
    let shared = Region::new(16 << 10, Kind { shared: true, noreserve: false })?;
    let mut children = Vec::new();
    for index in (0..count).step_by(BRANCH) {
        match fork()? {
            None => exit_now(i32::from(member(&shared, index).is_err())),
            Some(pid) => children.push(pid),
        }
    }
    let identity_then = identity()?;
    loop {
        let before: Vec<u64> = (0..count).map(|index| shared.get(index)).collect();
        let all_counted = || before.iter().zip(0..).all(|(then, index)| shared.get(index) > *then);
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let ended = || waitid(Id::All, look) != Ok(WaitStatus::StillAlive);
        victim::wait_until("every process to count on", || all_counted() || ended())?;
        ensure!(identity()? == identity_then, "the first process is another");
        ensure!(!ended(), "a process ended early");
        if !stage.end_round()? {
            break;
        }
    }
    shared.set(STOP, 1);
    reap(&children)
}

fn main() -> ExitCode {
    victim::main(run)
}

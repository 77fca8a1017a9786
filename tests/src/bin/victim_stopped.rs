//! Children that job control has stopped: they stay so, their parent is told what it had not been told, once, and SIGCONT works.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::{signal, sigqueue};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, setpgid};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Word of the shared region after the children's counters: all are to end.
const END: usize = 100;

/// A kind of child.
struct Part {
    stop: Signal,
    /// SIGCONT follows.
    goes_on: bool,
    /// The parent waits for the stop.
    told: bool,
    threads: usize,
}

const PARTS: [Part; 6] = [
    Part { stop: Signal::SIGSTOP, goes_on: false, told: false, threads: 1 },
    Part { stop: Signal::SIGSTOP, goes_on: false, told: true, threads: 1 },
    Part { stop: Signal::SIGTSTP, goes_on: false, told: true, threads: 1 },
    Part { stop: Signal::SIGTTIN, goes_on: false, told: false, threads: 5 },
    Part { stop: Signal::SIGTSTP, goes_on: true, told: false, threads: 1 },
    Part { stop: Signal::SIGSTOP, goes_on: true, told: false, threads: 3 },
];

/// A child: counts until it is told to end.
fn count(shared: &Arc<Region>, index: usize, threads: usize) {
    let run = move |shared: &Region| {
        while shared.get(END) == 0 {
            shared.word(index).fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let others: Vec<_> = (1..threads)
        .map(|_| {
            let shared = Arc::clone(shared);
            std::thread::spawn(move || run(&shared))
        })
        .collect();
    run(shared);
    others.into_iter().for_each(|thread| drop(thread.join()));
}

fn start(shared: &Arc<Region>, index: usize, part: &Part) -> Result<Pid> {
    let child = match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => {
            if setpgid(Pid::from_raw(0), Pid::from_raw(0)).is_ok() {
                count(shared, index, part.threads);
            }
            exit_now(3)
        }
        Forked::Parent { child, .. } => child,
    };
    victim::wait_until("a child to count", || shared.get(index) > 4)?;
    kill(child, part.stop)?;
    let look = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT;
    ensure!(waitid(Id::Pid(child), look)? == WaitStatus::Stopped(child, part.stop), "{child} was stopped otherwise");
    if part.told {
        waitid(Id::Pid(child), WaitPidFlag::WSTOPPED)?;
    }
    if part.goes_on {
        kill(child, Signal::SIGCONT)?;
        let look = WaitPidFlag::WCONTINUED | WaitPidFlag::WNOWAIT;
        ensure!(waitid(Id::Pid(child), look)? == WaitStatus::Continued(child), "{child} does not go on");
        let then = shared.get(index);
        victim::wait_until("a child to count on", || shared.get(index) > then + part.threads as u64)?;
    }
    Ok(child)
}

/// What is to be told of a child.
fn news(child: Pid) -> Result<WaitStatus> {
    let look = WaitPidFlag::WSTOPPED
        | WaitPidFlag::WCONTINUED
        | WaitPidFlag::WEXITED
        | WaitPidFlag::WNOHANG
        | WaitPidFlag::WNOWAIT;
    Ok(waitid(Id::Pid(child), look)?)
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Arc::new(Region::new(4096, Kind { shared: true, noreserve: false })?);
    let children: Vec<Pid> =
        PARTS.iter().enumerate().map(|(index, part)| start(&shared, index, part)).collect::<Result<_>>()?;
    let sigchld = signal::bit(libc::SIGCHLD);
    signal::set_mask(sigchld)?;
    let stood: Vec<u64> = (0..PARTS.len()).map(|index| shared.get(index)).collect();
    loop {
        for (index, (&child, part)) in children.iter().zip(&PARTS).enumerate() {
            let expected = match part {
                Part { goes_on: true, .. } => WaitStatus::Continued(child),
                Part { told: true, .. } => WaitStatus::StillAlive,
                Part { stop, .. } => WaitStatus::Stopped(child, *stop),
            };
            let told = news(child)?;
            ensure!(told == expected, "of part {index} is told {told:?} and not {expected:?}");
            if part.goes_on {
                let then = shared.get(index);
                victim::wait_until("a child that goes on", || shared.get(index) > then)?;
            } else {
                ensure!(shared.get(index) == stood[index], "part {index} goes on although it is stopped");
            }
        }
        ensure!(sigqueue::pending()? == 0, "a signal came: {:#x}", sigqueue::pending()?);
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    for (index, (&child, part)) in children.iter().zip(&PARTS).enumerate() {
        if !part.goes_on {
            kill(child, Signal::SIGCONT)?;
        }
        ensure!(waitid(Id::Pid(child), WaitPidFlag::WCONTINUED)? == WaitStatus::Continued(child), "no word of SIGCONT");
        let then = shared.get(index);
        victim::wait_until("every child to go on", || shared.get(index) > then + 5)?;
        if !part.goes_on {
            let taken = sigqueue::take(sigchld, Some(Duration::from_secs(10)))?;
            ensure!((taken.code, taken.pid) == (libc::CLD_CONTINUED, child.as_raw()), "SIGCHLD says {taken:?}");
        }
    }
    shared.set(END, 1);
    for child in children {
        ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 3), "{child} ended otherwise");
    }
    ensure!(waitpid(None::<Pid>, None) == Err(Errno::ECHILD), "there is another child");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

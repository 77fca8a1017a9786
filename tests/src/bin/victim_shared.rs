//! Shared anonymous memory between parent and child: they hand a number to and fro through it.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::sys::wait::{WaitStatus, waitpid};
use std::process::ExitCode;

const SIZE: usize = 1 << 20;
/// Word that carries the number: even for the child, odd for the parent.
const BALL: usize = 70_000;
const STOP: usize = 5;

fn run(stage: &mut Stage) -> Result<()> {
    let memory = Region::new(SIZE, Kind { shared: true, noreserve: false })?;
    let untouched = Region::new(SIZE, Kind { shared: true, noreserve: false })?;
    memory.set(100, 42);
    let child = match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => child,
        Forked::Child => {
            victim::return_the_ball(&memory, BALL, STOP);
            // Written by the child alone, read by the parent at the end: still the same memory?
            untouched.set(77, memory.get(100));
            exit_now(0)
        }
    };
    let mut ball = 0;
    loop {
        victim::wait_until("the child's answer", || memory.get(BALL) % 2 == 1)?;
        ensure!(memory.get(BALL) == ball + 1, "the number is {} after {ball}", memory.get(BALL));
        ball += 2;
        memory.set(BALL, ball);
        if !stage.end_round()? {
            break;
        }
    }
    memory.set(STOP, 1);
    ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "the child failed");
    ensure!(untouched.get(77) == 42, "what the child wrote is not seen");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

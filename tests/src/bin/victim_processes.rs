//! Many processes (4 unless told otherwise), each with memory (1 MiB unless told otherwise) of its own that it checks.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::sys::wait::{WaitStatus, waitpid};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Words of a page.
const PAGE: usize = 512;

/// What a process has in each word of a page.
fn expected(process: usize, page: usize) -> u64 {
    (process << 32 | page) as u64
}

/// Fills its memory, and looks at a page of it after the other until told to stop: then at all of them.
fn member(process: usize, mib: usize, control: &Region, stop: usize) -> Result<()> {
    let pages = mib << 8;
    let memory = Region::new(pages << 12, Kind::default())?;
    (0..pages * PAGE).for_each(|word| memory.set(word, expected(process, word / PAGE)));
    let check = |page: usize| {
        let found = memory.get(page * PAGE + page % PAGE);
        ensure!(found == expected(process, page), "process {process} has {found:#x} on page {page}");
        Ok(())
    };
    while control.get(stop) == 0 {
        let round = control.word(process).fetch_add(1, Ordering::Relaxed);
        check(usize::try_from(round)? % pages)?;
        std::thread::sleep(Duration::from_millis(20));
    }
    (0..pages).try_for_each(check)
}

fn run(stage: &mut Stage) -> Result<()> {
    let number = |at: usize, default| stage.arguments().get(at).map_or(Ok(default), |text| text.parse::<usize>());
    let (count, mib) = (number(0, 4)?, number(1, 1)?);
    let control = Region::new((count + 1) * 8, Kind { shared: true, noreserve: false })?;
    let mut children = Vec::new();
    for process in 0..count {
        match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
            Forked::Parent { child, .. } => children.push(child),
            Forked::Child => match member(process, mib, &control, count) {
                Ok(()) => exit_now(0),
                Err(error) => {
                    eprintln!("{error:#}");
                    exit_now(1)
                }
            },
        }
    }
    loop {
        let before: Vec<u64> = (0..count).map(|process| control.get(process)).collect();
        victim::wait_until("every child to go on", || {
            before.iter().zip(0..).all(|(then, process)| control.get(process) > *then)
        })?;
        if !stage.end_round()? {
            break;
        }
    }
    control.set(count, 1);
    for child in children {
        ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "child {child} found its memory changed");
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Memory shared copy-on-write since fork: each process sees its own changes only, and what none changed stays shared.

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
const PAGES: usize = 2048;
const CHILDREN: usize = 3;
/// Word of the control region after the children's counters.
const STOP: usize = 8;

/// What a process has on a page: its own mark on every 16th, what the parent wrote before the fork on the others.
fn expected(process: usize, page: usize) -> u64 {
    if page % 16 == process { 1 << 40 | (process * PAGES + page) as u64 } else { page as u64 * 7 }
}

fn check(memory: &Region, process: usize) -> Result<()> {
    for page in 0..PAGES {
        let found = memory.get(page * PAGE);
        ensure!(found == expected(process, page), "process {process} has {found:#x} on page {page}");
    }
    Ok(())
}

/// For the end only: a freeze that met an open file of /proc would be refused.
fn check_sharing(memory: &Region, process: usize) -> Result<()> {
    let shared = shared_bytes(memory)?;
    ensure!(shared > PAGES as u64 * 4096 / 2, "process {process} shares only {shared} bytes: fork sharing is lost");
    Ok(())
}

/// Bytes of the region that more than one process maps, by /proc/self/smaps.
fn shared_bytes(memory: &Region) -> Result<u64> {
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    let mut inside = false;
    let mut kib = 0;
    for line in smaps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let bounds =
            range.and_then(|(a, b)| Some((u64::from_str_radix(a, 16).ok()?, u64::from_str_radix(b, 16).ok()?)));
        if let Some((start, end)) = bounds {
            inside = (start..end).contains(&memory.address());
        } else if inside && (line.starts_with("Shared_Clean:") || line.starts_with("Shared_Dirty:")) {
            let value: u64 = line.split_whitespace().nth(1).map_or(Ok(0), str::parse)?;
            kib += value;
        }
    }
    Ok(kib * 1024)
}

fn run(stage: &mut Stage) -> Result<()> {
    let memory = Region::new(PAGES * 4096, Kind::default())?;
    let control = Region::new(4096, Kind { shared: true, noreserve: false })?;
    (0..PAGES).for_each(|page| memory.set(page * PAGE, page as u64 * 7));
    let mut children = Vec::new();
    for process in 1..=CHILDREN {
        match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
            Forked::Parent { child, .. } => children.push(child),
            Forked::Child => {
                for page in (process..PAGES).step_by(16) {
                    memory.set(page * PAGE, expected(process, page));
                }
                while control.get(STOP) == 0 {
                    if let Err(error) = check(&memory, process) {
                        eprintln!("{error:#}");
                        exit_now(1);
                    }
                    control.word(process).fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(5));
                }
                // Held until the parent has looked.
                while control.get(STOP) == 1 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                exit_now(0)
            }
        }
    }
    for page in (0..PAGES).step_by(16) {
        memory.set(page * PAGE, expected(0, page));
    }
    loop {
        check(&memory, 0)?;
        let before: Vec<u64> = (1..=CHILDREN).map(|process| control.get(process)).collect();
        victim::wait_until("every child to check its memory", || {
            before.iter().zip(1..).all(|(then, process)| control.get(process) > *then)
        })?;
        if !stage.end_round()? {
            break;
        }
    }
    control.set(STOP, 1);
    check_sharing(&memory, 0)?;
    control.set(STOP, 2);
    for child in children {
        ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "child {child} found its memory changed");
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

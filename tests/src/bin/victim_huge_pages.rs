//! Private memory in huge pages: written, never touched, read-only, and shared with a child that then writes one page of its own.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::Region;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use std::process::ExitCode;
use std::time::Duration;

/// Words of a huge page.
const PAGE: usize = (2 << 20) / 8;
const PAGES: usize = 4;
/// The page that nobody touches.
const UNTOUCHED: usize = 2;

fn region(base: u64) -> Result<Region> {
    let region = Region::with_flags(PAGES * PAGE * 8, libc::MAP_PRIVATE | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB)?;
    for page in (0..PAGES).filter(|&page| page != UNTOUCHED) {
        region.set(page * PAGE, base + page as u64);
        region.set((page + 1) * PAGE - 1, base + page as u64);
    }
    Ok(region)
}

fn is_as_written(region: &Region, base: u64) -> bool {
    (0..PAGES).filter(|&page| page != UNTOUCHED).all(|page| {
        let value = base + page as u64;
        region.get(page * PAGE) == value && region.get((page + 1) * PAGE - 1) == value
    })
}

fn run(stage: &mut Stage) -> Result<()> {
    let written = region(100)?;
    let read = region(200)?;
    read.protect(0, PAGES * PAGE, libc::PROT_READ)?;
    let child = match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => child,
        Forked::Child => {
            written.set(PAGE, 7);
            while written.get(PAGE) == 7 && written.get(0) == 100 && is_as_written(&read, 200) {
                std::thread::sleep(Duration::from_millis(1));
            }
            exit_now(1)
        }
    };
    let mut counted = 0;
    loop {
        ensure!(is_as_written(&written, 100) && is_as_written(&read, 200), "huge pages changed");
        ensure!(written.get(PAGE + 9) == counted, "the count is {} after {counted}", written.get(PAGE + 9));
        counted += 1;
        written.set(PAGE + 9, counted);
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    ensure!(written.get(UNTOUCHED * PAGE) == 0, "a page that was never written is not zero");
    // At the end only: reading smaps is slow.
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    let huge = smaps.lines().filter(|line| line.starts_with("VmFlags:") && line.contains(" ht")).count();
    ensure!(huge == 2, "{huge} mappings are of huge pages");
    kill(child, Signal::SIGKILL)?;
    ensure!(waitpid(child, None)? == WaitStatus::Signaled(child, Signal::SIGKILL, false), "the child's pages changed");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

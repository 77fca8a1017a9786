//! A reservation of 10 GiB of address space, a hundred pages of which are in use.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_tests::victim::{self, Stage};
use std::process::ExitCode;

const SIZE: usize = 10 << 30;
const USED: usize = 100;

fn run(stage: &mut Stage) -> Result<()> {
    let region = Region::new(SIZE, Kind { shared: false, noreserve: true })?;
    let step = region.words() / USED;
    for index in 0..USED {
        region.set(index * step, index as u64 + 1);
    }
    loop {
        let sum: u64 = (0..USED).map(|index| region.get(index * step)).sum();
        ensure!(sum == 5050, "the pages in use changed");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // At the end only: a freeze that met an open file of /proc would be refused.
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse()?;
    ensure!(kib < 1 << 20, "{kib} KiB are resident: the reservation was filled");
    // A page that was never touched still reads as zero.
    ensure!(region.get(step / 2) == 0, "an unused page has contents");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

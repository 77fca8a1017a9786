//! Pages without any access that have contents, between pages that are read-only and writable.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_tests::victim::{self, Stage};
use std::process::ExitCode;

/// Words of a page.
const PAGE: usize = 512;

fn run(stage: &mut Stage) -> Result<()> {
    let region = Region::new(4096 * 64, Kind::default())?;
    for page in 0..64 {
        region.set(page * PAGE + 3, page as u64 + 1000);
    }
    region.protect(0, 16 * PAGE, libc::PROT_NONE)?;
    region.protect(16 * PAGE, 16 * PAGE, libc::PROT_READ)?;
    region.protect(40 * PAGE, PAGE, libc::PROT_NONE)?;
    let maps_then = maps(&region)?;
    let mut expected = 1017;
    loop {
        ensure!(region.get(17 * PAGE + 3) == 1017, "a read-only page changed");
        ensure!(region.get(50 * PAGE) == expected - 1017, "a writable page changed");
        expected += 1;
        region.set(50 * PAGE, expected - 1017);
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // At the end only: a freeze that met an open file of /proc would be refused.
    ensure!(maps(&region)? == maps_then, "the protections changed: {:?}", maps(&region)?);
    region.protect(0, 64 * PAGE, libc::PROT_READ)?;
    for page in 0..64 {
        ensure!(region.get(page * PAGE + 3) == page as u64 + 1000, "page {page} lost its contents");
    }
    Ok(())
}

/// The protections of the region's parts.
fn maps(region: &Region) -> Result<Vec<String>> {
    let end = region.address() + region.words() as u64 * 8;
    let mut parts = Vec::new();
    for line in std::fs::read_to_string("/proc/self/maps")?.lines() {
        let Some((range, rest)) = line.split_once(' ') else { continue };
        let start = range.split('-').next().and_then(|start| u64::from_str_radix(start, 16).ok()).unwrap_or(0);
        // The last part may have been joined with a neighbour behind the region.
        if (region.address()..end - 23 * 4096).contains(&start) {
            parts.push(format!("{range} {}", &rest[..4]));
        }
    }
    Ok(parts)
}

fn main() -> ExitCode {
    victim::main(run)
}

//! A directory that is being listed: each entry comes once, whenever the listing is interrupted.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage, suffixed};
use std::collections::BTreeSet;
use std::fs::{self, File, ReadDir};
use std::path::Path;
use std::process::ExitCode;

/// With such long names, many more than one call returns.
const ENTRIES: usize = 1000;
const AT_A_TIME: usize = 7;

struct Listing {
    entries: ReadDir,
    seen: BTreeSet<String>,
}

impl Listing {
    fn begin(path: &Path) -> Result<Self> {
        Ok(Listing { entries: fs::read_dir(path)?, seen: BTreeSet::new() })
    }

    /// Goes on. False: it has ended, with every entry.
    fn go_on(&mut self) -> Result<bool> {
        for _ in 0..AT_A_TIME {
            let Some(entry) = self.entries.next() else {
                ensure!(self.seen.len() == ENTRIES, "the listing ended after {} entries", self.seen.len());
                return Ok(false);
            };
            let name = entry?.file_name().into_string().ok().context("a name of our own")?;
            ensure!(self.seen.insert(name.clone()), "{name} came twice");
        }
        Ok(true)
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let directory = suffixed(stage.path(), "many");
    fs::create_dir(&directory)?;
    for number in 0..ENTRIES {
        File::create(directory.join(format!("{number:0200}")))?;
    }
    let mut listing = Listing::begin(&directory)?;
    loop {
        if !listing.go_on()? {
            listing = Listing::begin(&directory)?;
        }
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    while listing.go_on()? {}
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

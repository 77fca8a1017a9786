//! Many processes (4 unless told otherwise), each with memory (1 MiB unless told otherwise) of its own that it checks, and memory (none
//! unless told otherwise) that their parent wrote before it forked and all check.

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

/// A process that is none: it wrote what all inherit.
const PARENT: usize = 1 << 20;

/// What a process has in each word of a page.
fn expected(process: usize, page: usize) -> u64 {
    (process << 32 | page) as u64
}

/// Memory in which each page tells who wrote it.
struct Written {
    by: usize,
    pages: usize,
    region: Region,
}

impl Written {
    fn new(by: usize, mib: usize) -> Result<Self> {
        let pages = mib << 8;
        let region = Region::new(pages << 12, Kind::default())?;
        (0..pages * PAGE).for_each(|word| region.set(word, expected(by, word / PAGE)));
        Ok(Written { by, pages, region })
    }

    fn check(&self, page: usize) -> Result<()> {
        let found = self.region.get(page * PAGE + page % PAGE);
        ensure!(found == expected(self.by, page), "process {} wrote page {page}, and {found:#x} is there", self.by);
        Ok(())
    }
}

/// Fills its memory, and looks at a page of all it has after the other until told to stop: then at all of them.
fn member(process: usize, mib: usize, inherited: Option<&Written>, control: &Region, stop: usize) -> Result<()> {
    let own = Written::new(process, mib)?;
    let all = [Some(&own), inherited];
    let mut all = all.into_iter().flatten();
    while control.get(stop) == 0 {
        let round = control.word(process).fetch_add(1, Ordering::Relaxed);
        let round = usize::try_from(round)?;
        all.clone().try_for_each(|memory| memory.check(round % memory.pages))?;
        std::thread::sleep(Duration::from_millis(20));
    }
    all.try_for_each(|memory| (0..memory.pages).try_for_each(|page| memory.check(page)))
}

fn run(stage: &mut Stage) -> Result<()> {
    let number = |at: usize, default| stage.arguments().get(at).map_or(Ok(default), |text| text.parse::<usize>());
    let (count, mib, before) = (number(0, 4)?, number(1, 1)?, number(2, 0)?);
    let inherited = (before > 0).then(|| Written::new(PARENT, before)).transpose()?;
    let control = Region::new((count + 1) * 8, Kind { shared: true, noreserve: false })?;
    let mut children = Vec::new();
    for process in 0..count {
        match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
            Forked::Parent { child, .. } => children.push(child),
            Forked::Child => match member(process, mib, inherited.as_ref(), &control, count) {
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

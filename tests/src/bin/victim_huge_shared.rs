//! Shared anonymous memory in huge pages: one that parent and child write, one that can only be read, and one that takes no page from the pool until it is touched.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::Region;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs::read_to_string;
use std::process::ExitCode;

/// Bytes and words of a huge page.
const BYTES: usize = 2 << 20;
const WORDS: usize = BYTES / 8;
const PAGES: usize = 3;
/// The page that nobody touches, and the last word of all.
const UNTOUCHED: usize = 1;
const LAST: usize = PAGES * WORDS - 1;
/// Word that carries the number, inside the third page: even for the child, odd for the parent.
const BALL: usize = 2 * WORDS + 70_000;
const STOP: usize = 5;

fn huge(pages: usize, flags: i32) -> Result<Region> {
    let kind = libc::MAP_SHARED | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
    Ok(Region::with_flags(pages * BYTES, kind | flags)?)
}

/// The flags of each mapping of huge pages, as smaps shows them.
fn flags_of_mappings() -> Result<Vec<String>> {
    let smaps = read_to_string("/proc/self/smaps")?;
    let flags = smaps.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
    Ok(flags.filter(|flags| flags.contains(" ht")).map(str::to_owned).collect())
}

fn run(stage: &mut Stage) -> Result<()> {
    let memory = huge(PAGES, 0)?;
    memory.set(LAST, 77);
    let read = huge(1, 0)?;
    read.set(WORDS - 1, 88);
    read.protect(0, WORDS, libc::PROT_READ)?;
    // More than the pool has.
    let unreserved = huge(20, libc::MAP_NORESERVE)?;
    let before = flags_of_mappings()?;
    let child = match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => child,
        Forked::Child => {
            victim::return_the_ball(&memory, BALL, STOP);
            exit_now(i32::from(read.get(WORDS - 1) != 88))
        }
    };
    let mut ball = 0;
    loop {
        victim::wait_until("the child's answer", || memory.get(BALL) % 2 == 1)?;
        ensure!(memory.get(BALL) == ball + 1, "the number is {} after {ball}", memory.get(BALL));
        ensure!(memory.get(LAST) == 77 && read.get(WORDS - 1) == 88, "the content is another");
        ball += 2;
        memory.set(BALL, ball);
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    memory.set(STOP, 1);
    ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "the child failed");
    ensure!(memory.get(UNTOUCHED * WORDS) == 0, "a page that was never written is not zero");
    unreserved.set(7 * WORDS, 1);
    let after = flags_of_mappings()?;
    ensure!(before.len() == 3 && after == before, "mappings with {before:?} became ones with {after:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

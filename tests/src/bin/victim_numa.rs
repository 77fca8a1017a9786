//! NUMA policies of threads, of private memory, of memory that a child inherited and sees otherwise, and of shared memory. All name
//! node 0, which every machine has. With the argument `hidden`, shared memory keeps a policy that no mapping tells.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::numa::{self, Policy};
use crfs_tests::victim::{self, Stage};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const DEFAULT: Policy = (0, 0);
const PREFERRED: Policy = (1, 1);
const BIND: Policy = (2, 1);
const INTERLEAVE: Policy = (3, 1);
const LOCAL: Policy = (4, 0);
const PREFERRED_MANY: Policy = (5, 1);
/// MPOL_F_STATIC_NODES; node 40 stays named, whether the machine has it or not.
const STATIC: Policy = (2 | 1 << 15, 1 | 1 << 40);
/// MPOL_F_RELATIVE_NODES
const RELATIVE: Policy = (3 | 1 << 14, 1 << 1);
/// MPOL_F_NUMA_BALANCING
const BALANCING: Policy = (2 | 1 << 13, 1);

const PAGE: usize = 4096;
/// Words of a page.
const WORDS: usize = PAGE / 8;
/// Pages of a region: the second and the third have policies.
const PAGES: usize = 4;
/// Words of the shared memory.
const READY: usize = 1;
const STOP: usize = 2;

struct Memory {
    own: Region,
    shared: Region,
    file: Region,
}

fn page(region: &Region, number: usize) -> u64 {
    region.address() + (number * PAGE) as u64
}

fn set(region: &Region, number: usize, policy: Policy) -> Result<()> {
    numa::set_memory(page(region, number), PAGE, policy).with_context(|| format!("mbind to {policy:x?}"))
}

/// Whether the pages of a region have these policies.
fn check(what: &str, region: &Region, policies: [Policy; PAGES]) -> Result<()> {
    for (number, wanted) in policies.into_iter().enumerate() {
        let policy = numa::of_memory(page(region, number))?;
        ensure!(policy == wanted, "{what}, page {number}: the policy is {policy:x?}, not {wanted:x?}");
    }
    Ok(())
}

/// The home node of the page is in no call, only here.
fn check_home_node(region: &Region) -> Result<()> {
    let line = format!("{:x} ", page(region, 1));
    let maps = std::fs::read_to_string("/proc/self/numa_maps")?;
    let found = maps.lines().find(|text| text.starts_with(&line)).context("no line of the page with a home node")?;
    ensure!(found.contains("bind=static:"), "the page with a home node: {found}");
    Ok(())
}

impl Memory {
    fn new() -> Result<Self> {
        let memory = Memory {
            own: Region::new(PAGES * PAGE, Kind { shared: false, noreserve: false })?,
            shared: Region::new(PAGES * PAGE, Kind { shared: true, noreserve: false })?,
            file: {
                let file = File::from(memfd_create("numa", MFdFlags::MFD_CLOEXEC)?);
                file.set_len((PAGES * PAGE) as u64)?;
                Region::of_file(file.as_fd(), PAGES * PAGE)?
            },
        };
        memory.own.set(WORDS, 7);
        memory.shared.set(WORDS, 8);
        set(&memory.own, 1, STATIC)?;
        numa::set_home_node(page(&memory.own, 1), PAGE, 0)?;
        set(&memory.own, 2, LOCAL)?;
        set(&memory.shared, 1, INTERLEAVE)?;
        set(&memory.shared, 2, RELATIVE)?;
        set(&memory.file, 2, BALANCING)?;
        Ok(memory)
    }

    fn check_shared(&self) -> Result<()> {
        check("shared memory", &self.shared, [DEFAULT, INTERLEAVE, RELATIVE, DEFAULT])?;
        check("a memfd", &self.file, [DEFAULT, DEFAULT, BALANCING, DEFAULT])?;
        ensure!(self.own.get(WORDS) == 7 && self.shared.get(WORDS) == 8, "contents changed");
        Ok(())
    }
}

/// Takes one policy off, sets another, and has none of its own.
fn child(memory: &Memory) -> Result<()> {
    numa::set_thread(DEFAULT)?;
    set(&memory.own, 1, DEFAULT)?;
    set(&memory.own, 3, PREFERRED_MANY)?;
    memory.shared.set(READY, 1);
    while memory.shared.get(STOP) == 0 {
        ensure!(numa::of_thread()? == DEFAULT, "the child's policy is {:x?}", numa::of_thread()?);
        check("the child's memory", &memory.own, [DEFAULT, DEFAULT, LOCAL, PREFERRED_MANY])?;
        memory.check_shared()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn thread(stop: &AtomicBool) -> Result<()> {
    numa::set_thread(PREFERRED)?;
    while !stop.load(Ordering::Relaxed) {
        ensure!(numa::of_thread()? == PREFERRED, "the thread's policy is {:x?}", numa::of_thread()?);
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    numa::set_thread(BIND)?;
    let memory = Memory::new()?;
    let child = victim::child(|| child(&memory))?;
    let stop = Arc::new(AtomicBool::new(false));
    let in_thread = Arc::clone(&stop);
    let thread = std::thread::spawn(move || thread(&in_thread));
    // After the fork: the child must not have it.
    set(&memory.own, 3, INTERLEAVE)?;
    if stage.arguments().first().is_some_and(|word| word == "hidden") {
        let file = File::from(memfd_create("hidden", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(PAGE as u64)?;
        let (seen, gone) = (Region::of_file(file.as_fd(), PAGE)?, Region::of_file(file.as_fd(), PAGE)?);
        set(&gone, 0, INTERLEAVE)?;
        drop(gone);
        std::mem::forget(seen);
    }
    victim::wait_until("the child's policies", || memory.shared.get(READY) == 1)?;
    loop {
        ensure!(numa::of_thread()? == BIND, "the first thread's policy is {:x?}", numa::of_thread()?);
        check("private memory", &memory.own, [DEFAULT, STATIC, LOCAL, INTERLEAVE])?;
        memory.check_shared()?;
        if thread.is_finished() || !stage.end_round_and_rest()? {
            break;
        }
    }
    check_home_node(&memory.own)?;
    memory.shared.set(STOP, 1);
    stop.store(true, Ordering::Relaxed);
    thread.join().ok().context("the thread panicked")??;
    victim::expect_success(child)
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Mappings that the kernel treats in a way of their own: guard pages, sealed, locked as they are touched, droppable. A child has guards
//! where its parent has none, and none where it has.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::process::ExitCode;
use std::time::Duration;

/// Words of a page.
const PAGE: usize = 512;
const PAGES: usize = 16;
/// include/uapi/asm-generic/mman-common.h, v6.18
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;
/// Pages that are guards in the parent, and in the child.
const PARENTS: [usize; 3] = [2, 3, 9];
const CHILDS: [usize; 3] = [3, 4, 9];
/// The word of the shared memory by which the parent ends the child; none of those that are looked at.
const STOP: usize = 7 * PAGE + 1;

/// Memory with a number in each page that is no guard.
struct Guarded {
    region: Region,
    guards: &'static [usize],
}

impl Guarded {
    fn new(kind: Kind) -> Result<Self> {
        let region = Region::new(PAGES * PAGE * 8, kind)?;
        for page in (0..PAGES).filter(|page| !PARENTS.contains(page)) {
            region.set(page * PAGE, page as u64 + 100);
        }
        for page in PARENTS {
            region.advise(page * PAGE, PAGE, MADV_GUARD_INSTALL)?;
        }
        Ok(Guarded { region, guards: &PARENTS })
    }

    /// The child's own guards in the place of its parent's.
    fn turn(&mut self) -> Result<()> {
        for page in PARENTS {
            self.region.advise(page * PAGE, PAGE, MADV_GUARD_REMOVE)?;
        }
        for page in CHILDS {
            self.region.advise(page * PAGE, PAGE, MADV_GUARD_INSTALL)?;
        }
        self.guards = &CHILDS;
        Ok(())
    }

    fn check(&self) -> Result<()> {
        for page in 0..PAGES {
            let mut word = [0; 8];
            let address = self.region.address() + (page * PAGE * 8) as u64;
            // As the kernel sees it: touching a guard would be the end.
            let read = crfs_sys::memory::read(Pid::this(), address, &mut word);
            let expected = if self.guards.contains(&page) { Err(Errno::EFAULT) } else { Ok(()) };
            ensure!(read == expected, "page {page} of {:?}: {read:?}", self.guards);
            if read.is_ok() && !PARENTS.contains(&page) {
                ensure!(u64::from_ne_bytes(word) == page as u64 + 100, "page {page} has other contents");
            }
        }
        Ok(())
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let mut private = Guarded::new(Kind::default())?;
    let mut shared = Guarded::new(Kind { shared: true, noreserve: false })?;
    let locked = Guarded::new(Kind::default())?;
    // It is locked, and the answer is for the guards, which have no pages.
    ensure!(locked.region.lock(false) == Err(Errno::ENOMEM), "guards were locked");
    let sealed = Guarded::new(Kind::default())?;
    sealed.region.protect(0, PAGES * PAGE, libc::PROT_READ)?;
    sealed.region.seal()?;
    let on_fault = Region::with_flags(PAGES * PAGE * 8, libc::MAP_PRIVATE)?;
    on_fault.lock(true)?;
    on_fault.set(3 * PAGE, 33);
    let droppable = Region::with_flags(PAGES * PAGE * 8, libc::MAP_DROPPABLE)?;
    droppable.set(0, 5);
    shared.region.set(STOP, 1);
    let child = match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => child,
        Forked::Child => {
            let turned = private.turn().and_then(|()| shared.turn());
            let mut good = turned.is_ok();
            while good && shared.region.get(STOP) != 0 {
                good = private.check().and(shared.check()).and(sealed.check()).is_ok();
                std::thread::sleep(Duration::from_millis(1));
            }
            good &= sealed.region.protect(0, PAGE, libc::PROT_NONE) == Err(Errno::EPERM) && droppable.get(0) == 0;
            exit_now(i32::from(!good))
        }
    };
    loop {
        for guarded in [&private, &shared, &locked, &sealed] {
            guarded.check()?;
        }
        ensure!(sealed.region.protect(0, PAGE, libc::PROT_NONE) == Err(Errno::EPERM), "the seal is broken");
        ensure!(on_fault.get(3 * PAGE) == 33, "locked memory changed");
        // The kernel may have dropped it, and only then.
        ensure!([0, 5].contains(&droppable.get(0)), "droppable memory changed");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // At the end only: reading smaps is slow.
    for (name, region, expected) in [
        ("locked", &locked.region, &["lo"][..]),
        ("sealed", &sealed.region, &["sl"]),
        ("locked on fault", &on_fault, &["lo", "lf"]),
        ("droppable", &droppable, &["dp", "wf", "dd", "nr"]),
    ] {
        let flags = flags(region)?;
        let there = expected.iter().all(|flag| flags.split_whitespace().any(|word| word == *flag));
        ensure!(there, "{name} memory has the flags {flags}");
    }
    shared.region.set(STOP, 0);
    ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "the child failed");
    Ok(())
}

/// `VmFlags` of the mapping that a region lies in.
fn flags(region: &Region) -> Result<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    let mut inside = false;
    for line in smaps.lines() {
        let range = line.split_whitespace().next().and_then(|word| word.split_once('-'));
        let hex = |text| u64::from_str_radix(text, 16).ok();
        if let Some((start, end)) = range.and_then(|(start, end)| Some((hex(start)?, hex(end)?))) {
            inside = (start..end).contains(&region.address());
        }
        if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
            return Ok(flags.to_owned());
        }
    }
    Ok(String::new())
}

fn main() -> ExitCode {
    victim::main(run)
}

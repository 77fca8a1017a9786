//! A restore as pure data: which steps, on which processes, in which order. Computed from the image alone, so that it can be
//! printed and tested without a kernel.
//!
//! "First create the process tree, then let each process restore itself": a process's memory is filled before its children
//! are cloned, so that they inherit it; what must come before what is data ([`order::AFTER`]), never the order of
//! statements.

mod birth;
pub mod memory;
pub mod order;
pub mod threads;
pub mod tree;

#[cfg(test)]
mod pid_namespace_tests;
#[cfg(test)]
mod tests;

use crate::failure::{Failure, Kind};
use crfs_tracee::stub;
use image_format::files::FileKind;
use image_format::manifest::NamespaceKind;
use image_format::namespaces::UnsharedNamespace;
use image_format::{Address, Image, Pid, ProcessImage};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use birth::{Birth, BornInto, Home, OUTSIDE, Role, Terminal};
pub use memory::MemoryPlan;
pub use order::{Action, Joining, Step};
pub use threads::ThreadStep;

/// Everything a build does, in order.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Every task group that is made, helpers and zombies among them.
    pub births: BTreeMap<Pid, Birth>,
    /// What is done to the address space of each process of the image.
    pub memory: BTreeMap<Pid, MemoryPlan>,
    /// Shared anonymous memory, by its number.
    pub objects: BTreeMap<u32, memory::Object>,
    /// How the threads of each process of the image are made.
    pub threads: BTreeMap<Pid, Vec<ThreadStep>>,
    /// Where code and data of ours lie in each of them meanwhile.
    pub scratch: Address,
    /// A descriptor number no process of the image uses, nor an epoll instance remembers: it holds the way back to the worker.
    pub link_fd: u32,
    /// The steps in an order that respects every dependency.
    pub steps: Vec<Step>,
}

/// Bytes reserved for the injector in every process.
pub const SCRATCH_SIZE: u64 = 256 << 10;

/// The link stays clear of what the worker itself has open when it clones the first process.
const LOWEST_LINK: u32 = 200;

/// Computes the plan of an image that [`image_format::check`] found sound, for a restore into `home`.
///
/// # Errors
/// [`Kind::BadImage`] for a tree no sequence of clone, setsid and setpgid can make.
pub fn compute(image: &Image, home: &Home) -> Result<Plan, Failure> {
    let births = tree::births(image, home)?;
    let memory = memory::plan(image, &births);
    let steps = order::sort(&births, &joining(image, &births))?;
    let watched = image.files.values().flat_map(|file| match &file.kind {
        FileKind::Epoll(epoll) => epoll.targets.as_slice(),
        _ => &[],
    });
    let fds = image.tables().flat_map(|table| table.fds).map(|fd| fd.fd);
    let fds = fds.chain(watched.map(|target| target.fd)).map(|fd| fd + 1);
    let objects = memory::objects(image);
    let threads =
        image.processes.iter().map(|(&pid, process)| (pid, threads::steps(process, &image.seccomp))).collect();
    Ok(Plan {
        births,
        memory,
        objects,
        threads,
        scratch: scratch(image)?,
        link_fd: fds.max().unwrap_or(0).max(LOWEST_LINK),
        steps,
    })
}

impl Plan {
    /// The process that is there before all others, which it makes.
    ///
    /// # Errors
    /// [`Kind::BadImage`] where there is none.
    pub fn first(&self) -> Result<Pid, Failure> {
        let first = self.births.values().find(|birth| birth.creator.is_none()).map(|birth| birth.pid);
        first.ok_or_else(|| Failure::new(Kind::BadImage, "process: there is no first process"))
    }
}

impl Home {
    /// Where an image goes on a host that has nothing in its way.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        if image.manifest.container.shares(NamespaceKind::Pid) { Home::Host(BTreeSet::new()) } else { Home::Own }
    }
}

/// Who joins namespaces. A helper stays in those of its maker.
fn joining(image: &Image, births: &BTreeMap<Pid, Birth>) -> Joining {
    let in_image = |pid: &Pid| image.processes.contains_key(pid);
    let maker = |pid: Pid| births.get(&pid).and_then(|birth| birth.creator);
    let born_into = |pid: Pid| {
        let mut makers = std::iter::successors(maker(pid), |&pid| maker(pid));
        makers.find(in_image).map_or(0, |maker| image.mounts_of_process(maker))
    };
    let moves = |&&pid: &&Pid| image.mounts_of_process(pid) != born_into(pid);
    // Processes, or threads of them.
    let joining: BTreeSet<Pid> = image.namespaces.iter().flat_map(UnsharedNamespace::joined_by).collect();
    let joins = |(&pid, process): (&Pid, &ProcessImage)| {
        let has_one = joining.contains(&pid) || process.threads.keys().any(|tid| joining.contains(tid));
        has_one.then_some(pid)
    };
    let clocks = image.time_namespaces().filter_map(|(time, line)| Some((image.maker_of_time(time)?, line)));
    let clocks = clocks.flat_map(|(maker, line)| line.processes.iter().map(move |&pid| (pid, maker)));
    Joining {
        others: image.processes.iter().filter_map(joins).collect(),
        mounts: image.processes.keys().filter(moves).copied().collect(),
        entering: image.threaded_in_user_namespaces(),
        clocks: clocks.collect(),
    }
}

/// The lowest hole that is free in every process: above mmap_min_addr, and more than 1 MiB below any mapping that grows
/// down, since the kernel keeps that gap (`stack_guard_gap`).
fn scratch(image: &Image) -> Result<Address, Failure> {
    const LOWEST: u64 = 0x10_0000;
    const GUARD: u64 = 2 << 20;
    // The stub's own pages, which are still there when the scratch is made.
    const STUB: (u64, u64) = (stub::TEXT.0, stub::TEXT.0 + 0x1000);
    let segments = image.processes.values().flat_map(|process| &process.segments);
    let mut taken: Vec<(u64, u64)> =
        segments.map(|s| (s.start.0.saturating_sub(GUARD), s.end.0)).chain([STUB]).collect();
    taken.sort_unstable();
    let mut at = LOWEST;
    for (start, end) in taken {
        if start >= at + SCRATCH_SIZE {
            break;
        }
        at = at.max(end);
    }
    if at + SCRATCH_SIZE > 0x7fff_0000_0000 {
        return Err(Failure::new(Kind::BadImage, "mem.segments: no address range is free in all processes"));
    }
    Ok(Address(at))
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "scratch {} .. {:#x}, link descriptor {}",
            self.scratch,
            self.scratch.0 + SCRATCH_SIZE,
            self.link_fd
        )?;
        for step in &self.steps {
            write!(f, "{:>10}  {}", step.process, step.action)?;
            match step.action {
                Action::Spawn => {
                    if let Some(birth) = self.births.get(&step.process) {
                        write!(f, "  {birth}")?;
                    }
                }
                Action::Memory => {
                    if let Some(memory) = self.memory.get(&step.process) {
                        write!(f, "  {memory}")?;
                    }
                }
                _ => {}
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

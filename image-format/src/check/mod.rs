//! What the files of an image say about each other: pure, before anything is created.
//!
//! Every check looks at one concern and reports all that is wrong with it, so that a user who edited a copy sees every
//! mistake at once. What the kernel would refuse is refused here with its reason, because a build that fails half-way
//! can only say EINVAL. What a program may do to itself is not: a handler at a wild address is its own affair.

mod aio;
mod cgroups;
mod controls;
mod descriptors;
mod io_uring;
mod locks;
mod manifest;
mod memory;
mod mounts;
mod mqueue;
mod namespaces;
mod numa;
mod owners;
mod pages;
mod paths;
mod pid_namespaces;
mod process;
mod seccomp;
mod sharing;
mod shown;
mod signals;
mod sockets;
mod sysv;
mod thread;
mod time_namespaces;
mod timers;
mod tree;
mod tty;
mod unnamed;
mod user_namespaces;
mod vfork;
mod watches;

use crate::contents::{self, ContentSum};
use crate::image::{Image, ImageError, ProcessImage};
use crate::layout::{self, CONTENTS_SUMS};
use crate::manifest::NamespaceKind;
use crate::memory::{CHUNK_SIZE, ChunkSum, Fixed};
use crate::parallel;
use crate::types::{Bytes, Pid, Timespec};

pub use manifest::{manifest, read_format, read_manifest};
pub use shown::shown;
pub use vfork::{Waiting, not_carried, waiting};

/// The first address user space cannot have on x86-64 with four-level page tables (TASK_SIZE_MAX,
/// arch/x86/include/asm/page_64_types.h, v6.18).
pub const ADDRESS_LIMIT: u64 = 0x7fff_ffff_f000;
/// Looking at fewer paths takes no longer than starting a thread.
const FEWEST_PATHS: usize = 512;

/// Everything that is wrong with an image, apart from `mem.sums` ([`sums`]), `contents.sums` ([`content_sums`]) and what takes page contents to see
/// ([`shown`]). Empty: it can be built.
///
/// `sizes` tells how many bytes the raw file at a path holds; None where there is no such file.
#[must_use]
pub fn image(image: &Image, sizes: &(dyn Fn(&str) -> Option<u64> + Sync)) -> Vec<ImageError> {
    let named = || {
        let mut findings = Findings::default();
        if let Err(error) = manifest(&image.manifest) {
            findings.0.push(error);
        }
        manifest::container(&image.manifest, &mut findings);
        paths::check(image, sizes, &mut findings);
        findings
    };
    let (mut findings, described) = parallel::both(image.manifest.paths.len() > FEWEST_PATHS, named, || whole(image));
    findings.0.extend(described.0);
    let processes = Vec::from_iter(&image.processes);
    let each = parallel::map(&processes, |&(&pid, process)| one_process(image, pid, process).0);
    findings.0.extend(each.into_iter().flatten());
    findings.0
}

/// What is wrong between the processes of an image and what they share.
fn whole(image: &Image) -> Findings {
    let mut findings = Findings::default();
    let has_init = !image.manifest.container.shares(NamespaceKind::Pid);
    tree::check(&image.processes, has_init, &mut findings);
    sharing::check(&image.processes, &image.namespaces, &mut findings);
    descriptors::check(image, &mut findings);
    owners::check(image, &mut findings);
    seccomp::check(image, &mut findings);
    sockets::check(image, &mut findings);
    sysv::check(image, &mut findings);
    mqueue::check(image, &mut findings);
    tty::check(image, &mut findings);
    locks::check(image, &mut findings);
    mounts::check(image, &mut findings);
    cgroups::check(image, &mut findings);
    namespaces::check(image, &mut findings);
    pid_namespaces::check(image, &mut findings);
    time_namespaces::check(image, &mut findings);
    user_namespaces::check(image, &mut findings);
    unnamed::check(image, &mut findings);
    io_uring::check(image, &mut findings);
    vfork::check(image, &mut findings);
    memory::objects(&image.processes, &mut findings);
    pages::sources(&image.processes, &mut findings);
    findings
}

/// What is wrong within a process.
fn one_process(image: &Image, pid: Pid, process: &ProcessImage) -> Findings {
    let mut findings = Findings::default();
    process::check(pid, process, &mut findings);
    controls::check(pid, process, &mut findings);
    signals::process(pid, process, &mut findings);
    memory::check(pid, process, &image.manifest, &mut findings);
    aio::check(pid, process, &mut findings);
    numa::check(pid, process, &mut findings);
    pages::own(pid, process, &mut findings);
    timers::check(pid, process, &mut findings);
    for (&tid, thread) in &process.threads {
        thread::check(pid, tid, thread, &image.manifest.cpu, &mut findings);
        signals::thread(pid, tid, thread, &mut findings);
    }
    findings
}

/// What is wrong with the lines of a process's `mem.sums`, for so many bytes of `mem.pages`: they must be one a chunk,
/// in order. Whether the checksums are right is for whoever reads the contents ([`crate::memory::checksum`]).
#[must_use]
pub fn sums(pid: Pid, sums: &[ChunkSum], pages_size: u64) -> Vec<ImageError> {
    let path = layout::process_file(pid, layout::MEM_SUMS);
    let mut findings = Findings::default();
    for (index, sum) in (0..).zip(sums) {
        if sum.chunk.0 != index {
            findings.line(&path, index, format!("chunk {:#x} stands where chunk {index:#x} belongs", sum.chunk.0));
        }
    }
    let chunks = pages_size.div_ceil(CHUNK_SIZE);
    if sums.len() as u64 != chunks {
        let name = layout::MEM_PAGES;
        findings.add(&path, format!("{} chunks, but {name} has {chunks}: {pages_size} bytes", sums.len()));
    }
    findings.0
}

/// What is wrong with the lines of `contents.sums`: they must be one a chunk of each file, in the order of the files.
#[must_use]
pub fn content_sums(image: &Image, sums: &[ContentSum]) -> Vec<ImageError> {
    let mut findings = Findings::default();
    let summed = contents::summed(&image.manifest.paths);
    let mut expected = summed.flat_map(|(path, size)| (0..contents::chunks(size)).map(move |n| (path, n)));
    for (index, sum) in (0..).zip(sums) {
        let ContentSum { path, chunk: Fixed(chunk), .. } = sum;
        match expected.next() {
            Some(belongs) if belongs == (path, *chunk) => {}
            Some((name, number)) => {
                let reason = format!("chunk {chunk:#x} of {path:?} stands where chunk {number:#x} of {name:?} belongs");
                // Whatever follows stands elsewhere too.
                findings.line(CONTENTS_SUMS, index, reason);
                return findings.0;
            }
            None => {
                findings.line(CONTENTS_SUMS, index, format!("chunk {chunk:#x} of {path:?}, which the image has not"));
                return findings.0;
            }
        }
    }
    if let Some((path, chunk)) = expected.next() {
        findings.add(CONTENTS_SUMS, format!("chunk {chunk:#x} of {path:?} is missing"));
    }
    findings.0
}

/// Collects what is wrong.
#[derive(Default)]
pub(crate) struct Findings(Vec<ImageError>);

impl Findings {
    fn add(&mut self, path: &str, reason: impl Into<String>) {
        self.0.push(content(path, reason));
    }

    /// `index` counts records from 0: in a file of lines each is the line after that.
    fn line(&mut self, path: &str, index: u64, reason: impl std::fmt::Display) {
        self.add(path, format!("line {}: {reason}", index.saturating_add(1)));
    }

    fn missing(&mut self, path: &str) {
        self.0.push(ImageError::Missing { path: path.to_owned() });
    }
}

fn content(path: &str, reason: impl Into<String>) -> ImageError {
    ImageError::Content { path: path.to_owned(), reason: reason.into() }
}

/// What is wrong with a path the kernel is going to look up, if anything.
fn absolute(path: &Bytes) -> Option<String> {
    /// PATH_MAX, which counts the closing NUL.
    const PATH_MAX: usize = 4096;
    let refuse = |reason: &str| Some(format!("{path:?} {reason}"));
    match &path.0 {
        bytes if !bytes.starts_with(b"/") => refuse("is not an absolute path"),
        bytes if bytes.contains(&0) => refuse("holds a NUL"),
        bytes if bytes.len() >= PATH_MAX => Some(format!("a path of {} bytes: the kernel takes 4095", bytes.len())),
        _ => None,
    }
}

/// What is wrong with a task's name, if anything (TASK_COMM_LEN is 16 with the NUL).
fn task_name(name: &Bytes) -> Option<String> {
    let bad = name.0.len() > 15 || name.0.contains(&0);
    bad.then(|| format!("name: {name:?} is not at most 15 bytes without NUL"))
}

/// What is wrong with a point in time, if anything.
fn time(time: Timespec) -> Option<String> {
    (time.nsec >= 1_000_000_000).then(|| format!("{} nanoseconds are a second or more", time.nsec))
}

/// What is wrong with a length of time, if anything.
fn duration(length: Timespec) -> Option<String> {
    time(length).or_else(|| (length.sec < 0).then(|| format!("{} seconds are negative", length.sec)))
}

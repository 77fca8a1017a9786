//! `arguments` and `environment` of a process: shown as they lie in its memory, and not to be edited.

use super::Findings;
use crate::image::{Image, ImageError};
use crate::layout::process_file;
use crate::memory::Source;
use crate::types::{Address, Bytes, PAGE_SIZE, Pid};

/// More than execve(2) takes of both together (three quarters of _STK_LIM, fs/exec.c, v6.18).
const MOST: u64 = 8 << 20;

/// Whether the arguments and environment that an image shows of a process are those in its memory. Memory that the image
/// does not hold (a mapped file's, untouched pages) is not compared. For images without other findings ([`super::image`]).
///
/// `page` gives a page of a process's `mem.pages`, counted from 0; None when it cannot be read, which is for others to tell.
#[must_use]
pub fn shown(image: &Image, pid: Pid, page: &dyn Fn(Pid, u64) -> Option<Vec<u8>>) -> Vec<ImageError> {
    let mut findings = Findings::default();
    let Some(process) = image.processes.get(&pid) else { return findings.0 };
    let record = &process.process;
    let layout = &record.layout;
    let holder = record.shares.memory.unwrap_or(pid);
    let read = |start: Address, end: Address| read(image, holder, start.0, end.0, page);
    let mut compare = |name: &str, shown: &[Bytes], bytes: Option<Vec<u8>>| {
        if bytes.is_some_and(|bytes| strings(&bytes) != shown) {
            let reason = format!("{name}: not as in memory, where it lies: it is shown here and cannot be edited");
            findings.add(&process_file(pid, "process"), reason);
        }
    };
    let arguments = read(layout.arg_start, layout.arg_end);
    let arguments = match arguments.as_deref() {
        // setproctitle(3) has written over the end, into the environment: the kernel shows one string, of a page at most
        // (fs/proc/base.c, get_mm_cmdline, v6.18).
        Some([.., last]) if *last != 0 => {
            let end = if layout.env_start == layout.arg_end { layout.env_end } else { layout.arg_end };
            let end = Address(end.0.min(layout.arg_start.0.saturating_add(PAGE_SIZE)));
            read(layout.arg_start, end).map(|bytes| bytes.split(|&byte| byte == 0).next().unwrap_or(&[]).to_vec())
        }
        _ => arguments,
    };
    compare("arguments", &record.arguments, arguments);
    compare("environment", &record.environment, read(layout.env_start, layout.env_end));
    findings.0
}

/// The strings that a NUL ends each, the last one perhaps not.
fn strings(bytes: &[u8]) -> Vec<Bytes> {
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|&byte| byte == 0).map(|part| Bytes(part.to_vec())).collect()
}

/// Memory of a process, as far as the image holds all of it.
fn read(image: &Image, pid: Pid, start: u64, end: u64, page: &dyn Fn(Pid, u64) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    if end.checked_sub(start)? > MOST {
        return None;
    }
    let mut bytes = Vec::new();
    let mut at = start;
    while at < end {
        let first = Address(at).page().0;
        let contents = find(image, pid, first, page)?;
        let stop = end.min(first.checked_add(PAGE_SIZE)?);
        let within = |address: u64| usize::try_from(address - first).ok();
        bytes.extend_from_slice(contents.get(within(at)?..within(stop)?)?);
        at = stop;
    }
    Some(bytes)
}

/// One page, wherever the image has it.
fn find(image: &Image, pid: Pid, address: u64, page: &dyn Fn(Pid, u64) -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let mut holder = pid;
    // No way is longer than there are processes.
    for _ in 0..image.processes.len() {
        let segments = &image.processes.get(&holder)?.segments;
        let mut ranges = segments.iter().flat_map(|segment| &segment.pages);
        let range = ranges.find(|range| (range.start.0..range.end()).contains(&address))?;
        match range.source {
            Source::Own(first) => return page(holder, first.checked_add((address - range.start.0) / PAGE_SIZE)?),
            Source::Process(next) => holder = next,
            Source::Zero | Source::File | Source::Guard | Source::Parent => return None,
        }
    }
    None
}

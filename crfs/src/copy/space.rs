//! A process's memory by address, wherever its contents lie in a checkpoint.

use crate::failure::{Failure, Kind};
use crate::transport::Source;
use image_format::memory::{self, PageRange};
use image_format::types::PAGE_SIZE;
use image_format::{Image, Pid, layout};

/// Addresses whose contents lie one after the other in the `mem.pages` of a process: its own, or that of one it shares them with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// First address.
    pub start: u64,
    /// Address after the last.
    pub end: u64,
    /// Whose `mem.pages`.
    pub holder: Pid,
    /// Where in it, bytes.
    pub offset: u64,
}

/// The stored memory of a process, ascending and apart. What is not stored is as the mapping's backing has it, or zero.
///
/// # Errors
/// [`Kind::NotFound`] when the image has no such process.
pub fn stored(image: &Image, pid: Pid) -> Result<Vec<Stored>, Failure> {
    if !image.processes.contains_key(&pid) {
        return Err(Failure::new(Kind::NotFound, format!("there is no process {pid} in it")));
    }
    let mut found = Vec::new();
    let holder = image.memory_holder(pid);
    for range in image.segments(holder).iter().flat_map(|segment| &segment.pages) {
        resolve(image, holder, range.start.0, range.end(), range, 0, &mut found);
    }
    found.sort_unstable_by_key(|stored| stored.start);
    Ok(found)
}

/// Follows pages to whose they are. A checked image has no circles; `depth` ends those of one that was not.
fn resolve(image: &Image, pid: Pid, start: u64, end: u64, range: &PageRange, depth: usize, found: &mut Vec<Stored>) {
    match range.source {
        memory::Source::Own(first) => {
            let offset = first * PAGE_SIZE + (start - range.start.0);
            found.push(Stored { start, end, holder: pid, offset });
        }
        memory::Source::Process(from) if depth < image.processes.len() => {
            for theirs in image.segments(from).iter().flat_map(|segment| &segment.pages) {
                let (start, end) = (start.max(theirs.start.0), end.min(theirs.end()));
                if start < end {
                    resolve(image, from, start, end, theirs, depth + 1, found);
                }
            }
        }
        _ => {}
    }
}

/// Reads stored memory from `address` on, which must lie in it together with the whole buffer.
///
/// # Errors
/// As [`Source::read_at`].
pub fn read(source: &dyn Source, stored: &Stored, address: u64, buffer: &mut [u8]) -> Result<(), Failure> {
    let path = layout::process_file(stored.holder, layout::MEM_PAGES);
    source.read_at(&path, stored.offset + (address - stored.start), buffer)
}

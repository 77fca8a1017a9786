//! Pages that a child still shares with its parent since fork(2): the same frame at the same address in both.
//!
//! Source: `Documentation/admin-guide/mm/pagemap.rst`, v6.18: eight bytes a page, bit 63 present, 62 swapped, 0 to 54 the
//! frame, or where in swap.

use super::super::proc::Proc;
use super::super::subject::Process;
use super::pages;
use crate::failure::{Doing, Failure};
use image_format::layout;
use image_format::types::PAGE_SIZE;
use std::fs::File;
use std::os::unix::fs::FileExt;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FRAME: u64 = (1 << 55) - 1;
/// Entries read at a time.
const CHUNK: u64 = 1 << 15;

/// The part of the child's pages that is the parent's too. Frames need CAP_SYS_ADMIN, without which nothing is shared.
pub(super) fn shared(
    child: &Process,
    of_child: &[(u64, u64)],
    parent: &Process,
    of_parent: &[(u64, u64)],
    proc: &mut Proc,
) -> Result<Vec<(u64, u64)>, Failure> {
    let mut open = |process: &Process| {
        let path = layout::process_file(process.pid, "mem.pages");
        proc.file(format_args!("{}/pagemap", process.alive().host)).doing(|| format!("{path}: opening pagemap"))
    };
    let common = pages::intersect(of_child, of_parent);
    if common.is_empty() {
        return Ok(common);
    }
    let (mine, theirs) = (open(child)?, open(parent)?);
    let mut same = Vec::new();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for (start, end) in common {
        let mut at = start;
        while at < end {
            let stop = end.min(at + CHUNK * PAGE_SIZE);
            let reading = || format!("{}: reading pagemap", layout::process_file(child.pid, "mem.pages"));
            read(&mine, at, stop, &mut a).doing(reading)?;
            read(&theirs, at, stop, &mut b).doing(reading)?;
            for (page, (&a, &b)) in (0u64..).zip(a.iter().zip(&b)) {
                if is_same(a, b) {
                    let address = at + page * PAGE_SIZE;
                    match same.last_mut() {
                        Some((_, last)) if *last == address => *last += PAGE_SIZE,
                        _ => same.push((address, address + PAGE_SIZE)),
                    }
                }
            }
            at = stop;
        }
    }
    Ok(same)
}

fn is_same(a: u64, b: u64) -> bool {
    let compared = PRESENT | SWAPPED | FRAME;
    a & compared == b & compared && a & (PRESENT | SWAPPED) != 0 && a & FRAME != 0
}

fn read(pagemap: &File, start: u64, end: u64, entries: &mut Vec<u64>) -> std::io::Result<()> {
    let count = usize::try_from((end - start) / PAGE_SIZE).unwrap_or(0);
    let mut bytes = vec![0; count * 8];
    pagemap.read_exact_at(&mut bytes, start / PAGE_SIZE * 8)?;
    entries.clear();
    entries.extend(bytes.chunks_exact(8).map(|entry| {
        let mut word = [0; 8];
        word.copy_from_slice(entry);
        u64::from_ne_bytes(word)
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_frame_that_is_known_and_equal_counts() {
        // Bit 56 (mapped once) and 55 (soft-dirty) differ between parent and child.
        assert!(is_same(PRESENT | 1 << 56 | 77, PRESENT | 1 << 55 | 77));
        assert!(is_same(SWAPPED | 5 << 5 | 1, SWAPPED | 5 << 5 | 1));
        assert!(!is_same(PRESENT | 77, PRESENT | 78));
        assert!(!is_same(PRESENT | 77, SWAPPED | 77));
        assert!(!is_same(PRESENT, PRESENT), "a hidden frame number is no frame number");
        assert!(!is_same(0, 0));
    }
}

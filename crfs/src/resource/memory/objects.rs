//! Shared anonymous memory: objects without a name that several mappings reach.

use super::super::Findings;
use super::pages;
use super::smaps::Mapping;
use crate::failure::{Doing, Failure};
use image_format::memory::SharedAnonymous;
use image_format::types::{PAGE_SIZE, Pid};
use nix::unistd::{Whence, lseek};
use std::collections::BTreeMap;
use std::fs::File;

/// One object, in bytes from its beginning.
#[derive(Debug)]
struct Object {
    number: u32,
    size: u64,
    /// Runs of pages that hold something, whether or not any mapping reaches them.
    data: Vec<(u64, u64)>,
    /// Runs that have a place in the image: whose, and its address less the offset.
    stored: Vec<(u64, u64, Pid, u64)>,
    /// A mapping of it, for an obstacle.
    seen_at: String,
}

/// All objects of a container, by device and inode.
#[derive(Debug, Default)]
pub(super) struct Objects {
    by_inode: BTreeMap<((u32, u32), u64), Object>,
}

impl Objects {
    /// The record of a mapping. `link` leads to the object.
    pub(super) fn find(&mut self, link: &str, mapping: &Mapping, shown: &str) -> Result<SharedAnonymous, Failure> {
        let key = (mapping.device, mapping.inode);
        if !self.by_inode.contains_key(&key) {
            let number = u32::try_from(self.by_inode.len() + 1).unwrap_or(u32::MAX);
            let file = File::open(link).doing(|| format!("{shown}: opening the shared memory"))?;
            let size = file.metadata().doing(|| format!("{shown}: looking at the shared memory"))?.len();
            let data = data(&file, size).doing(|| format!("{shown}: finding the contents of the shared memory"))?;
            let object = Object { number, size, data, stored: Vec::new(), seen_at: shown.to_owned() };
            self.by_inode.insert(key, object);
        }
        let object = &self.by_inode[&key];
        Ok(SharedAnonymous { object: object.number, offset: mapping.offset, size: object.size })
    }

    /// The runs of pages of one mapping: addresses, and the process they come from, None for itself. What lies below guards is
    /// out of reach there. Must be called in the order of processes and addresses.
    pub(super) fn place(
        &mut self,
        pid: Pid,
        window: (u64, u64),
        guards: &[(u64, u64)],
        shared: &SharedAnonymous,
    ) -> Vec<(u64, u64, Option<Pid>)> {
        let Some(object) = self.by_inode.values_mut().find(|object| object.number == shared.object) else {
            return Vec::new();
        };
        let delta = window.0.wrapping_sub(shared.offset);
        let reach = (shared.offset, shared.offset.saturating_add(window.1 - window.0));
        let guards: Vec<(u64, u64)> =
            guards.iter().map(|&(start, end)| (start.wrapping_sub(delta), end.wrapping_sub(delta))).collect();
        let wanted = pages::subtract(&pages::clip(&object.data, reach), &guards);
        let mut runs = Vec::new();
        let address = |offset: u64| offset.wrapping_add(delta);
        for &(start, end, owner, other_delta) in &object.stored {
            if owner != pid && other_delta == delta {
                for (start, end) in pages::clip(&wanted, (start, end)) {
                    runs.push((address(start), address(end), Some(owner)));
                }
            }
        }
        let mut stored: Vec<(u64, u64)> = object.stored.iter().map(|&(start, end, ..)| (start, end)).collect();
        stored.sort_unstable();
        for (start, end) in pages::subtract(&wanted, &stored) {
            runs.push((address(start), address(end), None));
            object.stored.push((start, end, pid, delta));
        }
        runs.sort_unstable();
        runs
    }

    /// Contents that no mapping reaches have no place in the image, and yet a program can map them again (mremap).
    pub(super) fn report(&self, findings: &mut Findings) {
        for object in self.by_inode.values() {
            let mut stored: Vec<(u64, u64)> = object.stored.iter().map(|&(start, end, ..)| (start, end)).collect();
            stored.sort_unstable();
            let left: u64 = pages::subtract(&object.data, &stored).iter().map(|(start, end)| end - start).sum();
            if left > 0 {
                findings.block(
                    &object.seen_at,
                    format!("shared memory of which {left} bytes with contents are mapped by no process, and those are not carried yet"),
                    "Unmap the rest of it too, or keep all of it mapped",
                );
            }
        }
    }
}

/// The runs of pages of a file in memory that hold something.
fn data(file: &File, size: u64) -> nix::Result<Vec<(u64, u64)>> {
    let mut runs = Vec::new();
    let mut at = 0;
    while at < size {
        let seek = |from: u64, whence| lseek(file, i64::try_from(from).unwrap_or(i64::MAX), whence);
        let start = match seek(at, Whence::SeekData) {
            Err(nix::errno::Errno::ENXIO) => break,
            other => other?.cast_unsigned(),
        };
        let end = seek(start, Whence::SeekHole)?.cast_unsigned();
        let round = |offset: u64| offset.div_ceil(PAGE_SIZE) * PAGE_SIZE;
        runs.push((start - start % PAGE_SIZE, round(end)));
        at = end.max(start + 1);
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u64 = PAGE_SIZE;

    fn objects(data: Vec<(u64, u64)>) -> Objects {
        let object = Object { number: 1, size: 16 * P, data, stored: Vec::new(), seen_at: "here".into() };
        Objects { by_inode: BTreeMap::from([(((0, 1), 7), object)]) }
    }

    fn shared(offset: u64) -> SharedAnonymous {
        SharedAnonymous { object: 1, offset, size: 16 * P }
    }

    #[test]
    fn each_page_is_stored_once_and_named_where_addresses_agree() {
        let mut objects = objects(vec![(0, 2 * P), (4 * P, 6 * P)]);
        let base = 100 * P;
        assert_eq!(
            objects.place(Pid(1), (base, base + 5 * P), &[], &shared(0)),
            [(base, base + 2 * P, None), (base + 4 * P, base + 5 * P, None)]
        );
        // The same addresses in a child, and one page more.
        assert_eq!(
            objects.place(Pid(2), (base, base + 16 * P), &[], &shared(0)),
            [
                (base, base + 2 * P, Some(Pid(1))),
                (base + 4 * P, base + 5 * P, Some(Pid(1))),
                (base + 5 * P, base + 6 * P, None)
            ]
        );
        // Elsewhere: the object carries them.
        assert!(objects.place(Pid(3), (500 * P, 516 * P), &[], &shared(0)).is_empty());
        let mut findings = Findings::default();
        objects.report(&mut findings);
        assert!(findings.blockers.is_empty());
    }

    #[test]
    fn what_lies_below_a_guard_is_named_by_another() {
        let mut objects = objects(vec![(0, 3 * P)]);
        let base = 100 * P;
        let guard = [(base + P, base + 2 * P)];
        assert_eq!(
            objects.place(Pid(1), (base, base + 16 * P), &guard, &shared(0)),
            [(base, base + P, None), (base + 2 * P, base + 3 * P, None)]
        );
        assert_eq!(
            objects.place(Pid(2), (base, base + 16 * P), &[], &shared(0)),
            [
                (base, base + P, Some(Pid(1))),
                (base + P, base + 2 * P, None),
                (base + 2 * P, base + 3 * P, Some(Pid(1)))
            ]
        );
    }

    #[test]
    fn contents_out_of_reach_are_an_obstacle() {
        let mut objects = objects(vec![(0, 2 * P), (8 * P, 9 * P)]);
        assert_eq!(objects.place(Pid(1), (P, 3 * P), &[], &shared(0)), [(P, 3 * P, None)]);
        let mut findings = Findings::default();
        objects.report(&mut findings);
        assert!(findings.blockers[0].reason.contains("4096 bytes"), "{:?}", findings.blockers);
    }
}

//! `aio`: contexts and the rings that belong to them.

use super::{Findings, memory};
use crate::aio::{AioContext, ring_places};
use crate::image::ProcessImage;
use crate::layout::process_file;
use crate::memory::{Backing, Protection, Segment};
use crate::types::{Address, Pid};
use std::collections::BTreeMap;

pub(super) fn check(pid: Pid, process: &ProcessImage, findings: &mut Findings) {
    let is_ring = |(_, segment): &(u64, &Segment)| segment.backing == Backing::AioRing;
    let rings = (0..).zip(&process.segments).filter(is_ring);
    let mut rings: BTreeMap<Address, (u64, &Segment)> =
        rings.map(|(index, ring)| (ring.start, (index, ring))).collect();
    let path = process_file(pid, "aio");
    let mut previous = None;
    for (index, AioContext { ring, events }) in (0..).zip(&process.aio) {
        if previous.is_some_and(|previous| previous >= *ring) {
            findings.line(&path, index, format!("ring {ring}: not in ascending order"));
        } else if let Some((_, segment)) = rings.remove(ring) {
            let places = ring_places(segment.end.0.saturating_sub(segment.start.0));
            if events.len() as u64 >= places {
                findings.line(&path, index, format!("{} events: the ring holds fewer than {places}", events.len()));
            }
        } else {
            findings.line(&path, index, format!("ring {ring}: mem.segments has none there"));
        }
        previous = Some(*ring);
    }
    for (index, ring) in rings.values() {
        findings.line(&memory::path(pid), *index, format!("{}: aio has no context with this ring", ring.start));
    }
}

/// What is wrong with the mapping of a ring, which io_setup(2) makes.
pub(super) fn ring(segment: &Segment) -> Vec<Option<String>> {
    let plain = Protection::PROT_READ.0 | Protection::PROT_WRITE.0;
    vec![
        (!segment.shared).then(|| "a ring of asynchronous I/O is always mapped shared".to_owned()),
        (segment.protection.0 != plain)
            .then(|| "protection: a ring of asynchronous I/O is read and written".to_owned()),
    ]
}

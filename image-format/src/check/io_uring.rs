//! Rings of io_uring, and the mappings that show them.

use super::{Findings, memory};
use crate::files::FileKind;
use crate::image::Image;
use crate::io_uring::{
    COOP_TASKRUN, DEFER_TASKRUN, FLAGS, IoUring, MAX_CQ_ENTRIES, MAX_SQ_ENTRIES, MappedRing, R_DISABLED, SINGLE_ISSUER,
    TASKRUN_FLAG,
};
use crate::layout::file_entry;
use crate::memory::{Backing, Segment};
use crate::types::FileId;
use std::collections::BTreeMap;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    let mut rings: BTreeMap<u32, (FileId, &IoUring)> = BTreeMap::new();
    for (&id, file) in &image.files {
        let FileKind::IoUring(ring) = &file.kind else { continue };
        let problems = own(ring).into_iter().chain(issuer(ring, image));
        problems.flatten().for_each(|problem| findings.add(&file_entry(id), problem));
        if let Some((other, _)) = rings.insert(ring.ring, (id, ring)) {
            findings.add(&file_entry(id), format!("ring {}: it is {}'s", ring.ring, file_entry(other)));
        }
    }
    for (&pid, process) in &image.processes {
        for (index, segment) in (0..).zip(&process.segments) {
            let Backing::IoUring(mapped) = &segment.backing else { continue };
            let problem = match rings.get(&mapped.ring) {
                Some((_, ring)) => shown(segment, mapped, ring),
                None => Some(format!("ring {}: no descriptor leads to it", mapped.ring)),
            };
            if let Some(problem) = problem {
                findings.line(&memory::path(pid), index, problem);
            }
        }
    }
}

fn own(ring: &IoUring) -> Vec<Option<String>> {
    let entries = |name: &str, count: u32, most: u32| {
        let fits = count.is_power_of_two() && count <= most;
        (!fits).then(|| format!("{name} {count}: a ring has a power of two up to {most}"))
    };
    let unknown = ring.flags.0 & !FLAGS;
    // What completes is at most what was taken, and both are counted modulo 2^32.
    let ahead = ring.submitted.wrapping_sub(ring.completed).cast_signed() < 0;
    vec![
        (ring.ring == 0).then(|| "ring 0: rings are counted from 1".to_owned()),
        (unknown != 0).then(|| format!("flags: {unknown:#x} is not known here")),
        entries("sq_entries", ring.sq_entries, MAX_SQ_ENTRIES),
        entries("cq_entries", ring.cq_entries, MAX_CQ_ENTRIES),
        (ring.cq_entries < ring.sq_entries)
            .then(|| format!("cq_entries {}: fewer than entries to be submitted", ring.cq_entries)),
        ahead.then(|| format!("completed {}: more than were submitted, {}", ring.completed, ring.submitted)),
    ]
}

/// Whose a ring is, and which flags that needs (`io_uring_sanitise_params` in io_uring/io_uring.c, v6.18).
fn issuer(ring: &IoUring, image: &Image) -> [Option<String>; 6] {
    let lives = |thread| image.processes.values().any(|process| process.threads.contains_key(&thread));
    let [single, is_disabled] = [SINGLE_ISSUER, R_DISABLED].map(|flag| ring.has(flag));
    let of = |reason: &str| ring.issuer.map(|thread| format!("issuer {thread}: {reason}"));
    [
        ring.issuer.filter(|&thread| !lives(thread)).and_then(|_| of("no process has this thread")),
        of("the ring belongs to no thread (IORING_SETUP_SINGLE_ISSUER)").filter(|_| !single),
        of("a ring that is disabled (IORING_SETUP_R_DISABLED) has none yet").filter(|_| single && is_disabled),
        (is_disabled && ring.submitted != 0).then(|| {
            format!("submitted {}: a ring that is disabled (IORING_SETUP_R_DISABLED) takes nothing", ring.submitted)
        }),
        (ring.has(DEFER_TASKRUN) && !single).then(|| {
            "flags: IORING_SETUP_DEFER_TASKRUN is of rings of one thread (IORING_SETUP_SINGLE_ISSUER)".to_owned()
        }),
        (ring.has(TASKRUN_FLAG) && !ring.has(COOP_TASKRUN) && !ring.has(DEFER_TASKRUN)).then(|| {
            "flags: IORING_SETUP_TASKRUN_FLAG needs IORING_SETUP_COOP_TASKRUN or IORING_SETUP_DEFER_TASKRUN".to_owned()
        }),
    ]
}

fn shown(segment: &Segment, mapped: &MappedRing, ring: &IoUring) -> Option<String> {
    let length = segment.end.0.saturating_sub(segment.start.0);
    match ring.shown(mapped.offset.0) {
        _ if !segment.shared => Some("a ring of io_uring is always mapped shared".to_owned()),
        None => Some(format!("offset {}: a ring has nothing there to be mapped", mapped.offset)),
        Some(size) if length > size => Some(format!("{length} bytes: ring {} has {size} there", mapped.ring)),
        Some(_) => None,
    }
}

//! Captures `aio`.

use super::super::Findings;
use super::super::kernel::Kernel;
use super::super::subject::Process;
use crate::failure::{Doing, Failure};
use crfs_kstate::{AioContext as Known, Feature};
use image_format::aio::{AioContext, AioEvent, EVENT_SIZE, RING_HEADER, ring_places};
use image_format::memory::{Backing, Segment};
use image_format::{Hex, layout};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How long requests may go on while everything stands still.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(1);

/// Reads the contexts of a process with memory of its own, whose mappings these are.
///
/// # Errors
/// When the process is gone, or its memory cannot be read.
pub fn capture(
    process: &Process,
    segments: &[Segment],
    kernel: &mut Kernel,
    findings: &mut Findings,
) -> Result<Vec<AioContext>, Failure> {
    let path = layout::process_file(process.pid, "aio");
    let known = settled(process, &path, kernel)?;
    let mut rings: Vec<&Segment> = segments.iter().filter(|segment| segment.backing == Backing::AioRing).collect();
    let mut contexts = Vec::new();
    for context in known {
        let is_its = |ring: &&Segment| ring.start.0 == context.id && places(ring) == u64::from(context.places);
        let Some(at) = rings.iter().position(is_its) else {
            findings.block(
                &path,
                format!(
                    "has a context of asynchronous I/O (io_setup) whose ring at {:#x} was unmapped in part",
                    context.id
                ),
                "Have the program destroy it with io_destroy before the checkpoint",
            );
            continue;
        };
        let ring = rings.swap_remove(at);
        if context.under_way > 0 {
            findings.block(
                &path,
                format!("has requests of asynchronous I/O (io_submit) under way: {}", context.under_way),
                "Try again when they have completed; have the program cancel those that wait for a poll",
            );
            continue;
        }
        let events = events(process, ring).doing(|| format!("{path}: reading the ring at {}", ring.start))?;
        contexts.push(AioContext { ring: ring.start, events });
    }
    // That nothing can be told of any is an obstacle of its own.
    let can_be_told = kernel.parts().0.feature(Feature::AioRequests).is_ok();
    for ring in rings.iter().filter(|_| can_be_told) {
        findings.block(
            format!("{}: {:#x}-{:#x}", layout::process_file(process.pid, "mem.segments"), ring.start.0, ring.end.0),
            "maps a ring of asynchronous I/O (io_setup) that is another process's, or a part of one; not carried yet",
            "Unmap it before the checkpoint",
        );
    }
    contexts.sort_by_key(|context| context.ring);
    Ok(contexts)
}

/// The contexts, when no request is under way any more or the time is up.
fn settled(process: &Process, path: &str, kernel: &mut Kernel) -> Result<Vec<Known>, Failure> {
    let host = process.alive().host;
    if !kernel.ask(host, path, |state, task| state.has_aio(task))?.unwrap_or(false) {
        return Ok(Vec::new());
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let contexts = kernel.ask(host, path, |state, task| state.aio_contexts(task))?.unwrap_or_default();
        if contexts.iter().all(|context| context.under_way == 0) || Instant::now() >= end {
            return Ok(contexts);
        }
        std::thread::sleep(PAUSE);
    }
}

fn places(ring: &Segment) -> u64 {
    ring_places(ring.end.0 - ring.start.0)
}

/// What waits in a ring (`struct aio_ring`, `aio_read_events_ring` in fs/aio.c, v6.18), oldest first.
fn events(process: &Process, ring: &Segment) -> std::io::Result<Vec<AioEvent>> {
    let memory = File::open(format!("/proc/{}/mem", process.alive().host))?;
    let mut bytes = vec![0; usize::try_from(ring.end.0 - ring.start.0).map_err(std::io::Error::other)?];
    memory.read_exact_at(&mut bytes, ring.start.0)?;
    let word = |at: u64, length: usize| -> u64 {
        let mut word = [0; 8];
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(found) = from.checked_add(length).and_then(|to| bytes.get(from..to)) {
            word[..length].copy_from_slice(found);
        }
        u64::from_ne_bytes(word)
    };
    // The program can write there what it likes; the kernel takes it as follows.
    let places = places(ring);
    let (head, tail) = (word(8, 4) % places, word(12, 4) % places);
    let count = (tail + places - head) % places;
    let event = |at: u64| RING_HEADER + (head + at) % places * EVENT_SIZE;
    Ok((0..count)
        .map(event)
        .map(|at| AioEvent {
            data: Hex(word(at, 8)),
            obj: Hex(word(at + 8, 8)),
            res: word(at + 16, 8).cast_signed(),
            res2: word(at + 24, 8).cast_signed(),
        })
        .collect())
}

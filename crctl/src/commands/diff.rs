//! `crctl diff`.

use super::place;
use crate::exit::Different;
use crate::output::{bytes, print, print_json};
use anyhow::Result;
use crfs::copy::Copy;
use crfs::copy::space::{self, Stored};
use crfs::registry::Registry;
use crfs::transport::Source;
use image_format::image::{ProcessImage, ThreadImage};
use image_format::memory::Segment;
use image_format::process::Fd;
use image_format::types::PAGE_SIZE;
use image_format::{Image, Pid};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Memory is compared so many bytes at a time.
const PIECE: u64 = 1 << 20;

/// One side's tree and records.
struct Side {
    source: Box<dyn Source>,
    image: Image,
}

/// A line of what differs.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Difference {
    /// The process; null for the container's own.
    process: Option<u32>,
    /// In words.
    what: String,
}

pub(super) fn diff(registry: &Registry, one: &Path, other: &Path, json: bool) -> Result<()> {
    let load = |what: &Path| -> Result<Side> {
        let source = place::open(registry, what)?;
        let image = Copy::of(&*source)?.image;
        Ok(Side { source, image })
    };
    let (one, other) = (load(one)?, load(other)?);
    let differences = differences(&one, &other)?;
    if json {
        print_json(&differences)?;
    } else {
        let line = |difference: &Difference| match difference.process {
            Some(pid) => format!("process {pid}: {}\n", difference.what),
            None => format!("{}\n", difference.what),
        };
        print(&differences.iter().map(line).collect::<String>())?;
    }
    if differences.is_empty() { Ok(()) } else { Err(Different.into()) }
}

fn differences(one: &Side, other: &Side) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    let container = |image: &Image| serde_json::to_value(&image.manifest.container).unwrap_or_default();
    if container(&one.image) != container(&other.image) {
        let what = format!("the container was {}, is {}", container(&one.image), container(&other.image));
        found.push(Difference { process: None, what });
    }
    let pids: BTreeSet<Pid> = one.image.processes.keys().chain(other.image.processes.keys()).copied().collect();
    for pid in pids {
        let mut tell = |what: String| found.push(Difference { process: Some(pid.0), what });
        match (one.image.processes.get(&pid), other.image.processes.get(&pid)) {
            (Some(gone), None) => tell(format!("gone ({})", gone.process.exe)),
            (None, Some(new)) => tell(format!("new ({})", new.process.exe)),
            (Some(then), Some(now)) => {
                records(then, now, &mut tell);
                threads(then, now, &mut tell);
                descriptors("", (&one.image, &then.fds), (&other.image, &now.fds), &mut tell);
                for (tid, thread) in &then.threads {
                    let later = now.threads.get(tid).and_then(|later| later.fds.as_deref());
                    if let (Some(then), Some(now)) = (&thread.fds, later) {
                        let whose = format!("thread {tid}: ");
                        descriptors(&whose, (&one.image, then), (&other.image, now), &mut tell);
                    }
                }
                mappings(then, now, &mut tell);
                pages(one, other, pid, &mut tell)?;
            }
            (None, None) => {}
        }
    }
    Ok(found)
}

/// Fields of `process` and `attr` that changed.
fn records(then: &ProcessImage, now: &ProcessImage, tell: &mut impl FnMut(String)) {
    let values = |image: &ProcessImage| {
        [serde_json::to_value(&image.process), serde_json::to_value(&image.attr)].map(Result::unwrap_or_default)
    };
    for (then, now) in values(then).into_iter().zip(values(now)) {
        let (Some(then), Some(now)) = (then.as_object(), now.as_object()) else { continue };
        // What is nested has lines of its own elsewhere, or is too long to show.
        for (key, value) in then.iter().filter(|(key, value)| now.get(*key) != Some(value)) {
            match now.get(key) {
                Some(new) if !value.is_object() => tell(format!("{key} was {value}, is {new}")),
                _ => tell(format!("{key} changed")),
            }
        }
    }
}

fn threads(then: &ProcessImage, now: &ProcessImage, tell: &mut impl FnMut(String)) {
    for (tid, thread) in &then.threads {
        match now.threads.get(tid) {
            None => tell(format!("thread {tid} is gone")),
            Some(later) if later.frame != thread.frame => {
                tell(format!(
                    "thread {tid} went on (at {}, was at {})",
                    later.frame.registers.rip, thread.frame.registers.rip
                ));
            }
            Some(later) if !same(thread, later) => tell(format!("thread {tid} changed")),
            Some(_) => {}
        }
    }
    for tid in now.threads.keys().filter(|tid| !then.threads.contains_key(tid)) {
        tell(format!("thread {tid} is new"));
    }
}

/// Whether two records of a thread say the same, but for what its descriptors are.
fn same(one: &ThreadImage, other: &ThreadImage) -> bool {
    let fds = one.fds.as_ref().and(other.fds.clone());
    let plain = |thread: &ThreadImage| ThreadImage { fds: fds.clone(), ..thread.clone() };
    one.fds.is_some() == other.fds.is_some() && plain(one) == plain(other)
}

/// Changes of a descriptor table. `whose` is put before each.
fn descriptors(whose: &str, then: (&Image, &[Fd]), now: (&Image, &[Fd]), tell: &mut impl FnMut(String)) {
    // Numbers of descriptions are given anew at every freeze: what is behind them counts.
    let open = |(image, fds): (&Image, &[Fd])| -> BTreeMap<u32, String> {
        let record = |fd: &Fd| {
            let file = image.files.get(&fd.file).map(serde_json::to_string);
            format!(
                "{}{}",
                file.and_then(Result::ok).unwrap_or_default(),
                if fd.cloexec { " close-on-exec" } else { "" }
            )
        };
        fds.iter().map(|fd| (fd.fd, record(fd))).collect()
    };
    let (then, now) = (open(then), open(now));
    for (fd, record) in &then {
        match now.get(fd) {
            None => tell(format!("{whose}descriptor {fd} is closed: {record}")),
            Some(later) if later != record => tell(format!("{whose}descriptor {fd} was {record}, is {later}")),
            Some(_) => {}
        }
    }
    for (fd, record) in now.iter().filter(|(fd, _)| !then.contains_key(fd)) {
        tell(format!("{whose}descriptor {fd} is new: {record}"));
    }
}

fn mappings(then: &ProcessImage, now: &ProcessImage, tell: &mut impl FnMut(String)) {
    let by_start = |image: &ProcessImage| -> BTreeMap<u64, Segment> {
        let plain = |segment: &Segment| Segment { pages: Vec::new(), ..segment.clone() };
        image.segments.iter().map(|segment| (segment.start.0, plain(segment))).collect()
    };
    let (then, now) = (by_start(then), by_start(now));
    let shown = |segment: &Segment| format!("{}-{}", segment.start, segment.end);
    for (start, segment) in &then {
        match now.get(start) {
            None => tell(format!("mapping {} is gone", shown(segment))),
            Some(later) if later.end != segment.end => {
                tell(format!("mapping {} is {} now", shown(segment), shown(later)));
            }
            Some(later) if later != segment => tell(format!("mapping {} changed", shown(segment))),
            Some(_) => {}
        }
    }
    for (_, segment) in now.iter().filter(|(start, _)| !then.contains_key(start)) {
        tell(format!("mapping {} is new", shown(segment)));
    }
}

/// How much of its memory changed, and where it begins to.
fn pages(one: &Side, other: &Side, pid: Pid, tell: &mut impl FnMut(String)) -> Result<()> {
    let then = space::stored(&one.image, pid)?;
    let now = space::stored(&other.image, pid)?;
    let (mut changed, mut first, mut common) = (0, None, 0);
    for (a, b) in overlaps(&then, &now) {
        let (start, end) = (a.start.max(b.start), a.end.min(b.end));
        common += end - start;
        let (mut left, mut right) = (Vec::new(), Vec::new());
        let mut at = start;
        while at < end {
            let length = usize::try_from(PIECE.min(end - at))?;
            left.resize(length, 0);
            right.resize(length, 0);
            space::read(&*one.source, a, at, &mut left)?;
            space::read(&*other.source, b, at, &mut right)?;
            let page = usize::try_from(PAGE_SIZE)?;
            for (index, (left, right)) in left.chunks(page).zip(right.chunks(page)).enumerate() {
                if left != right {
                    changed += 1;
                    first.get_or_insert(at + index as u64 * PAGE_SIZE);
                }
            }
            at += length as u64;
        }
    }
    if let Some(first) = first {
        tell(format!("{} of memory changed, from {first:#x} on", bytes(changed * PAGE_SIZE)));
    }
    let size = |stored: &[Stored]| stored.iter().map(|run| run.end - run.start).sum::<u64>();
    for (count, what) in [(size(&now) - common, "new"), (size(&then) - common, "gone")] {
        if count > 0 {
            tell(format!("{} of memory contents are {what}", bytes(count)));
        }
    }
    Ok(())
}

/// The pairs of runs that have addresses in common; both lists ascend.
fn overlaps<'a>(then: &'a [Stored], now: &'a [Stored]) -> Vec<(&'a Stored, &'a Stored)> {
    let mut pairs = Vec::new();
    let mut from = 0;
    for a in then {
        while now.get(from).is_some_and(|b| b.end <= a.start) {
            from += 1;
        }
        pairs.extend(now[from..].iter().take_while(|b| b.start < a.end).map(|b| (a, b)));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_overlap_are_paired() {
        let run = |start, end| Stored { start, end, holder: Pid(1), offset: 0 };
        let (then, now) = ([run(0, 4), run(6, 8), run(9, 20)], [run(1, 2), run(3, 7), run(8, 9), run(12, 14)]);
        let pairs: Vec<_> = overlaps(&then, &now).into_iter().map(|(a, b)| (a.start, b.start)).collect();
        assert_eq!(pairs, [(0, 1), (0, 3), (6, 3), (9, 12)]);
    }
}

//! `crctl mem`.

use super::place;
use crate::cli::Mem;
use crate::output::{bytes, print, print_bytes, print_json, table};
use anyhow::{Context, Result, bail};
use crfs::copy::Copy;
use crfs::copy::space::{self, Stored};
use crfs::registry::Registry;
use crfs::transport::Source;
use image_format::memory::{Backing, Segment};
use image_format::{Image, Pid};
use serde::Serialize;
use std::os::unix::ffi::OsStrExt;

/// Memory is read so many bytes at a time.
const PIECE: u64 = 1 << 20;
/// Characters of the picture of a mapping.
const PICTURE: u64 = 16;

/// A mapping.
#[derive(Serialize)]
struct Mapping {
    pid: u32,
    start: String,
    end: String,
    /// Bytes.
    size: u64,
    protection: String,
    shared: bool,
    kind: String,
    /// Bytes of its contents that lie in this process's `mem.pages`.
    stored: u64,
    /// Bytes that lie in another process's, which it shares them with.
    stored_elsewhere: u64,
    /// `#` stored, `+` stored with another process, `.` as the file or zero, from its start to its end.
    picture: String,
}

pub(super) fn mem(registry: &Registry, arguments: &Mem, json: bool) -> Result<()> {
    let source = place::open(registry, &arguments.what)?;
    let image = Copy::of(&*source)?.image;
    let pids: Vec<Pid> = match arguments.pid {
        Some(pid) => vec![Pid(pid)],
        None => image.processes.keys().copied().collect(),
    };
    if let Some((start, end)) = arguments.dump {
        let [pid] = pids[..] else { bail!("there are {} processes; say which with --pid", pids.len()) };
        return dump(&*source, &image, pid, start, end);
    }
    if let Some(text) = &arguments.find {
        return find(&*source, &image, &pids, text.as_bytes(), json);
    }
    let mut mappings = Vec::new();
    for pid in pids {
        let stored = space::stored(&image, pid)?;
        let segments = image.segments(pid);
        mappings.extend(segments.iter().map(|segment| mapping(pid, segment, &stored)));
    }
    if json {
        return print_json(&mappings);
    }
    let row = |mapping: &Mapping| {
        vec![
            mapping.pid.to_string(),
            format!("{}-{}", mapping.start, mapping.end),
            bytes(mapping.size),
            mapping.protection.clone(),
            bytes(mapping.stored),
            bytes(mapping.stored_elsewhere),
            mapping.picture.clone(),
            mapping.kind.clone(),
        ]
    };
    let rows: Vec<_> = mappings.iter().map(row).collect();
    print(&table(&["PID", "RANGE", "SIZE", "PROT", "STORED", "SHARED", "", "KIND"], &rows))
}

fn mapping(pid: Pid, segment: &Segment, stored: &[Stored]) -> Mapping {
    let (start, end) = (segment.start.0, segment.end.0);
    let count = |from: u64, to: u64, own: bool| -> u64 {
        let common = |run: &Stored| run.end.min(to).saturating_sub(run.start.max(from));
        stored.iter().filter(|run| (run.holder == pid) == own).map(common).sum()
    };
    // Wide enough for the whole address space times the picture.
    let edge =
        |n: u64| start + u64::try_from(u128::from(end - start) * u128::from(n) / u128::from(PICTURE)).unwrap_or(0);
    let cell = |n: u64| {
        let (from, to) = (edge(n), edge(n + 1));
        match (count(from, to, true), count(from, to, false)) {
            (0, 0) => '.',
            (own, other) if own >= other => '#',
            _ => '+',
        }
    };
    let prot = segment.protection.0;
    let letter = |bit: u64, letter: char| if prot & bit != 0 { letter } else { '-' };
    let sharing = if segment.shared { 's' } else { 'p' };
    Mapping {
        pid: pid.0,
        start: segment.start.to_string(),
        end: segment.end.to_string(),
        size: end - start,
        protection: [letter(1, 'r'), letter(2, 'w'), letter(4, 'x'), sharing].into_iter().collect(),
        shared: segment.shared,
        kind: kind(&segment.backing),
        stored: count(start, end, true),
        stored_elsewhere: count(start, end, false),
        picture: (0..PICTURE).map(cell).collect(),
    }
}

/// What is mapped, in a word or a path.
fn kind(backing: &Backing) -> String {
    if let Backing::File(file) = backing {
        return file.path.escaped();
    }
    // The record's own word for it.
    match serde_json::to_value(backing) {
        Ok(serde_json::Value::String(word)) => word,
        Ok(serde_json::Value::Object(object)) => object.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}

/// A place where the text stands.
#[derive(Serialize)]
struct Found {
    pid: u32,
    address: String,
    kind: String,
}

fn find(source: &dyn Source, image: &Image, pids: &[Pid], text: &[u8], json: bool) -> Result<()> {
    if text.is_empty() {
        bail!("--find: nothing to search for");
    }
    let mut found = Vec::new();
    for &pid in pids {
        let segments = image.segments(pid);
        let mut tell = |address: u64| {
            let segment = segments.iter().find(|segment| segment.start.0 <= address && address < segment.end.0);
            let kind = segment.map(|segment| kind(&segment.backing)).unwrap_or_default();
            found.push(Found { pid: pid.0, address: format!("{address:#x}"), kind });
        };
        // What is kept of the memory before, so that a text is found that begins there.
        let (mut window, mut window_end) = (Vec::new(), 0);
        for run in space::stored(image, pid)? {
            if run.start != window_end {
                window.clear();
            }
            let mut at = run.start;
            while at < run.end {
                let length = usize::try_from(PIECE.min(run.end - at))?;
                let kept = window.len();
                window.resize(kept + length, 0);
                space::read(source, &run, at, &mut window[kept..])?;
                let begin = at - kept as u64;
                memchr::memmem::find_iter(&window, text).for_each(|offset| tell(begin + offset as u64));
                at += length as u64;
                let done = window.len() - window.len().min(text.len() - 1);
                window.drain(..done);
            }
            window_end = run.end;
        }
    }
    if json {
        return print_json(&found);
    }
    let rows: Vec<_> = found.into_iter().map(|one| vec![one.pid.to_string(), one.address, one.kind]).collect();
    print(&table(&["PID", "ADDRESS", "KIND"], &rows))
}

fn dump(source: &dyn Source, image: &Image, pid: Pid, start: u64, end: u64) -> Result<()> {
    let stored = space::stored(image, pid)?;
    let segments = image.segments(pid);
    let mut at = start;
    let mut buffer = Vec::new();
    while at < end {
        let segment = segments.iter().find(|segment| segment.start.0 <= at && at < segment.end.0);
        let segment = segment.with_context(|| format!("nothing is mapped at {at:#x}"))?;
        let run = stored.iter().find(|run| run.end > at).filter(|run| run.start < segment.end.0);
        let upto = match run {
            Some(run) if run.start <= at => run.end,
            Some(run) => run.start,
            None => segment.end.0,
        };
        let upto = upto.min(end).min(segment.end.0).min(at + PIECE);
        buffer.clear();
        buffer.resize(usize::try_from(upto - at)?, 0);
        match run.filter(|run| run.start <= at) {
            Some(run) => space::read(source, run, at, &mut buffer)?,
            // Memory that nobody wrote to is zero; what a file has is in the file.
            None if matches!(segment.backing, Backing::File(_)) => {
                bail!("{at:#x}: is as {} has it, and not in the checkpoint", kind(&segment.backing))
            }
            None => {}
        }
        if !print_bytes(&buffer)? {
            return Ok(());
        }
        at = upto;
    }
    Ok(())
}

//! `crctl inspect`.

use super::place;
use crate::output::{bytes, command, date, print, print_json, shortened, table};
use anyhow::Result;
use crfs::copy::Copy;
use crfs::registry::Registry;
use image_format::image::ProcessImage;
use image_format::{Image, Pid};
use serde::Serialize;
use std::path::Path;

/// What a checkpoint holds.
#[derive(Serialize)]
struct Contents {
    name: String,
    generator: String,
    format: u32,
    architecture: String,
    kernel: String,
    /// Seconds since the epoch.
    taken: i64,
    hostname: String,
    root: Option<String>,
    /// Bytes of page contents.
    page_bytes: u64,
    processes: Vec<Process>,
    files: Vec<File>,
}

#[derive(Serialize)]
struct Process {
    pid: u32,
    parent: u32,
    /// How many ancestors it has in the container.
    depth: usize,
    name: String,
    threads: usize,
    descriptors: usize,
    /// Bytes mapped.
    mapped: u64,
    /// Bytes of page contents of its own.
    stored: u64,
    uid: u32,
    exe: String,
    cwd: String,
    arguments: Vec<String>,
}

/// An open file description.
#[derive(Serialize)]
struct File {
    id: u32,
    kind: String,
    /// Its record in the image.
    record: serde_json::Value,
    /// Who has it open: process and descriptor.
    open: Vec<(u32, u32)>,
}

pub(super) fn inspect(registry: &Registry, what: &Path, json: bool) -> Result<()> {
    let source = place::open(registry, what)?;
    let image = Copy::of(&*source)?.image;
    let contents = contents(&image);
    if json { print_json(&contents) } else { print(&text(&contents)) }
}

fn contents(image: &Image) -> Contents {
    let manifest = &image.manifest;
    let mut processes = Vec::new();
    children(image, Pid(0), 0, &mut processes);
    let files = image.files.iter().map(|(&id, file)| {
        let record = serde_json::to_value(file).unwrap_or_default();
        let holders = image
            .tables()
            .flat_map(|table| table.fds.iter().filter(move |fd| fd.file == id).map(move |fd| (table.owner.0, fd.fd)));
        File { id: id.0, kind: kind(&record), record, open: holders.collect() }
    });
    Contents {
        name: manifest.name.clone(),
        generator: manifest.generator.clone(),
        format: manifest.format,
        architecture: manifest.architecture.clone(),
        kernel: manifest.kernel.release.clone(),
        taken: i64::try_from(manifest.clocks.realtime.ns() / 1_000_000_000).unwrap_or(i64::MAX),
        hostname: manifest.container.hostname.escaped(),
        root: manifest.container.root.as_ref().map(image_format::Bytes::escaped),
        page_bytes: image.processes.values().map(ProcessImage::pages_size).sum(),
        processes,
        files: files.collect(),
    }
}

/// A process's children and theirs, each after its parent.
fn children(image: &Image, parent: Pid, depth: usize, found: &mut Vec<Process>) {
    for (&pid, process) in image.processes.iter().filter(|(_, process)| process.process.parent == parent) {
        let first = process.first_thread().map(|(_, thread)| &thread.attr);
        found.push(Process {
            pid: pid.0,
            parent: parent.0,
            depth,
            name: first.map(|attr| attr.name.escaped()).unwrap_or_default(),
            threads: process.threads.len(),
            descriptors: process.fds.len(),
            mapped: process.segments.iter().map(|segment| segment.end.0 - segment.start.0).sum(),
            stored: process.pages_size(),
            uid: first.map_or(0, |attr| attr.credentials.uid[0]),
            exe: process.process.exe.escaped(),
            cwd: process.process.cwd.escaped(),
            arguments: process.process.arguments.iter().map(image_format::Bytes::escaped).collect(),
        });
        if parent != pid {
            children(image, pid, depth + 1, found);
        }
    }
}

/// The name of what is open: the only key of the record's `kind`.
fn kind(record: &serde_json::Value) -> String {
    match &record["kind"] {
        serde_json::Value::Object(object) => object.keys().next().cloned().unwrap_or_default(),
        serde_json::Value::String(name) => name.clone(),
        _ => String::new(),
    }
}

fn text(contents: &Contents) -> String {
    let threads: usize = contents.processes.iter().map(|process| process.threads).sum();
    let mut text = format!(
        "container   {}{}\ntaken       {} by {}, format {}\nmachine     Linux {}, {}, host name {}\nholds       {} processes, {threads} threads, {} open files, {} of pages\n\n",
        contents.name,
        contents.root.as_ref().map(|root| format!(", root {root}")).unwrap_or_default(),
        date(contents.taken),
        contents.generator,
        contents.format,
        contents.kernel,
        contents.architecture,
        contents.hostname,
        contents.processes.len(),
        contents.files.len(),
        bytes(contents.page_bytes),
    );
    let row = |process: &Process| {
        vec![
            process.pid.to_string(),
            format!("{}{}", "  ".repeat(process.depth), process.name),
            process.threads.to_string(),
            process.descriptors.to_string(),
            bytes(process.mapped),
            bytes(process.stored),
            process.uid.to_string(),
            shortened(&command(&process.arguments), 60),
        ]
    };
    let rows: Vec<_> = contents.processes.iter().map(row).collect();
    text += &table(&["PID", "NAME", "THREADS", "FDS", "MAPPED", "STORED", "UID", "COMMAND"], &rows);
    let row = |file: &File| {
        let open: Vec<String> = file.open.iter().map(|(pid, fd)| format!("{pid}:{fd}")).collect();
        let what = file.record["kind"][&file.kind]["path"].as_str().unwrap_or_default();
        vec![file.id.to_string(), file.kind.clone(), shortened(what, 60), shortened(&open.join(" "), 60)]
    };
    let rows: Vec<_> = contents.files.iter().map(row).collect();
    text.push('\n');
    text + &table(&["FILE", "KIND", "PATH", "OPEN AS (PID:FD)"], &rows)
}

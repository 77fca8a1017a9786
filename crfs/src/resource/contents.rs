//! Raw files of an image whose contents stay where they are while the container stands still, and are read from there.
//!
//! A copy of them would take as much memory again, and as long as reading it. A link of /proc leads to what a process holds: its
//! owner stands still, and so does the content.

use super::mount::MountPlace;
use super::subject::living_thread;
use crate::failure::{Doing, Failure};
use crate::resource::proc::{Proc, Status};
use image_format::files::FileKind;
use image_format::memory::{Backing, Segment};
use image_format::mounts::{MountKind, data_size};
use image_format::namespaces::namespace_of_segment;
use image_format::{FileId, Image, Pid, ProcessImage, layout};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::path::PathBuf;

/// A raw file that is read elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elsewhere {
    /// Its path in the image.
    pub path: String,
    /// Where its content is.
    pub place: ContentPlace,
    /// Bytes.
    pub size: u64,
}

/// Where the content of a raw file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ContentPlace {
    /// What a link of /proc leads to.
    Link(PathBuf),
    /// The files of a mount, which the text file of the same name without `.data` lists.
    Mount(MountPlace),
}

/// Finds what can be read through one of the processes, whose host pids `host` gives. Each once.
///
/// # Errors
/// When a process is gone.
pub fn elsewhere(image: &Image, host: impl Fn(Pid) -> Option<i32>) -> Result<Vec<Elsewhere>, Failure> {
    let mut found = Vec::new();
    for file in &image.unnamed {
        let path = layout::unnamed_data(file.number);
        let link = match holder(image, file.number, &host) {
            Some(Holder::Descriptor(host, fd)) => PathBuf::from(format!("/proc/{host}/fd/{fd}")),
            Some(Holder::Mapping(host, address)) => mapped_at(host, address).doing(|| format!("{path}: finding it"))?,
            None => continue,
        };
        found.push(Elsewhere { path, place: ContentPlace::Link(link), size: file.size });
    }
    for (namespace, objects) in image.ipc_namespaces() {
        let is_there = |pid, id| namespace_of_segment(&image.namespaces, pid, id) == namespace;
        let mut attached = attached(&image.processes, &host, is_there)?;
        for segment in &objects.segments {
            if let Some(link) = attached.remove(&segment.id) {
                let path = layout::segment_data(namespace, segment.id);
                found.push(Elsewhere { path, place: ContentPlace::Link(link), size: segment.content_size() });
            }
        }
    }
    for mount in image.mounts.iter().filter(|mount| matches!(mount.kind, MountKind::Tmpfs(_))) {
        let (Some(host), Some(tree)) = (viewer(image, mount.namespace, &host), image.trees.get(&mount.number)) else {
            continue;
        };
        let place = ContentPlace::Mount(MountPlace { host, path: mount.path.clone() });
        found.push(Elsewhere { path: layout::mount_data(mount.number), place, size: data_size(tree) });
    }
    Ok(found)
}

/// Who sees the mounts of a namespace: the first process the container's own, one whose root directory is that of the namespace those of
/// another.
fn viewer(image: &Image, namespace: u32, host: impl Fn(Pid) -> Option<i32>) -> Option<i32> {
    let sees = |&(&pid, process): &(&Pid, &ProcessImage)| {
        let is_there = image.mounts_of_process(pid) == namespace;
        is_there && (namespace == 0 || process.process.root.0 == b"/")
    };
    image.processes.iter().filter(sees).find_map(|(&pid, _)| host(pid)).map(living_thread)
}

/// The link to a mapping of each System V segment that processes have attached, by its id; of those that are in the namespace that is meant,
/// which `is_there` tells of a process and an id.
///
/// # Errors
/// When a process is gone.
pub fn attached(
    processes: &BTreeMap<Pid, ProcessImage>,
    host: impl Fn(Pid) -> Option<i32>,
    is_there: impl Fn(Pid, u32) -> bool,
) -> Result<BTreeMap<u32, PathBuf>, Failure> {
    let mut links = BTreeMap::new();
    for (&pid, process) in processes {
        for mapped in &process.segments {
            let (Backing::SysvShm(piece), Some(host)) = (&mapped.backing, host(pid)) else { continue };
            if let Entry::Vacant(new) = links.entry(piece.segment)
                && is_there(pid, piece.segment)
            {
                let link = mapped_at(host, mapped.start.0);
                new.insert(link.doing(|| format!("{}: finding segment {}", layout::SYSV_SHM, piece.segment))?);
            }
        }
    }
    Ok(links)
}

/// Where a process has a file.
enum Holder {
    /// Host id of the process or thread, and descriptor.
    Descriptor(i32, u32),
    /// Host pid and address.
    Mapping(i32, u64),
}

/// Who has a file that no path leads to.
fn holder(image: &Image, number: u32, host: impl Fn(Pid) -> Option<i32>) -> Option<Holder> {
    let opened = |file: FileId| {
        let file = image.files.get(&file).map(|file| &file.kind);
        matches!(file, Some(FileKind::Unnamed(unnamed)) if unnamed.file == number)
    };
    let maps = |segment: &Segment| matches!(&segment.backing, Backing::Unnamed(mapped) if mapped.file == number);
    let mapped = || {
        image.processes.iter().find_map(|(&pid, process)| {
            let mapped = process.segments.iter().find(|segment| maps(segment))?;
            Some(Holder::Mapping(host(pid)?, mapped.start.0))
        })
    };
    let held = image.tables().find_map(|table| {
        let fd = table.fds.iter().find(|fd| opened(fd.file))?;
        let host = host(table.process)?;
        let task = if table.owner == table.process { host } else { thread_of(host, table.owner)? };
        Some(Holder::Descriptor(task, fd.fd))
    });
    held.or_else(mapped)
}

/// The thread of a process that the container numbers so, as the host numbers it.
fn thread_of(host: i32, thread: Pid) -> Option<i32> {
    let mut proc = Proc::open().ok()?;
    let threads = proc.numbers(format_args!("{host}/task")).ok()?;
    threads.into_iter().find(|tid| {
        let status = Status::read(&mut proc, &format!("{host}/task/{tid}/status"));
        status.is_ok_and(|status| status.ns_pid.contains(&thread.0))
    })
}

/// The link to what this process maps at an address.
pub(super) fn mapped_here(address: u64) -> std::io::Result<PathBuf> {
    mapped_at(nix::unistd::getpid().as_raw(), address)
}

/// The link to what a process maps at an address. Neighbours that a record keeps apart may be one mapping.
pub(super) fn mapped_at(host: i32, address: u64) -> std::io::Result<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{host}/maps"))?;
    let range = |line: &str| {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        Some(u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
    };
    let mapped = maps.lines().filter_map(range).find(|range| range.contains(&address));
    let mapped = mapped.ok_or(std::io::ErrorKind::NotFound)?;
    Ok(PathBuf::from(format!("/proc/{host}/map_files/{:x}-{:x}", mapped.start, mapped.end)))
}

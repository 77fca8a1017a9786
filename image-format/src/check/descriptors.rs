//! `fds` and `files/`: descriptors name descriptions that are there, and descriptions ask for what can be opened.

use super::{Findings, absolute, duration, time};
use crate::ended::{self, EndedTask};
use crate::files::{Directory, File, FileKind, IfChanged, OpenFlags, Pidfd, Pipe, PseudoFile, RegularFile, Timerfd};
use crate::image::Image;
use crate::layout::{STDIOS, file_entry};
use crate::types::{FileId, PAGE_SIZE};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// NR_OPEN's own ceiling is below 2^30 (fs/file.c, sysctl_nr_open_max, v6.18).
const FD_LIMIT: u32 = 1 << 30;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    references(image, findings);
    for (&id, file) in &image.files {
        for problem in description(file) {
            findings.add(&file_entry(id), problem);
        }
    }
    pipes(image, findings);
    pidfds(image, findings);
    circles(image, findings);
}

/// Descriptors once each, and every description there and held by someone.
fn references(image: &Image, findings: &mut Findings) {
    let mut held = HashSet::new();
    let mut refer = |findings: &mut Findings, path: &str, index: u64, file: FileId| {
        held.insert(file);
        if !image.files.contains_key(&file) {
            findings.line(path, index, format!("there is no {}", file_entry(file)));
        }
    };
    for table in image.tables() {
        let path = table.path();
        let mut seen = HashSet::new();
        for (index, entry) in (0..).zip(table.fds) {
            refer(findings, &path, index, entry.file);
            if !seen.insert(entry.fd) {
                findings.line(&path, index, format!("descriptor {} stands there twice", entry.fd));
            }
            if entry.fd >= FD_LIMIT {
                findings.line(&path, index, format!("descriptor {} is beyond {}", entry.fd, FD_LIMIT - 1));
            }
        }
    }
    let mut streams = BTreeSet::new();
    for (index, stdio) in (0..).zip(&image.stdios) {
        refer(findings, STDIOS, index, stdio.file);
        if !streams.insert(stdio.file) {
            findings.line(STDIOS, index, format!("{} stands there twice", file_entry(stdio.file)));
        }
    }
    for (&id, file) in &image.files {
        let FileKind::Epoll(epoll) = &file.kind else { continue };
        let path = file_entry(id);
        let mut seen = BTreeSet::new();
        for target in &epoll.targets {
            if !image.files.contains_key(&target.file) {
                findings.add(&path, format!("target {}: there is no {}", target.fd, file_entry(target.file)));
            }
            if target.fd >= FD_LIMIT {
                findings.add(&path, format!("target {} is beyond {}", target.fd, FD_LIMIT - 1));
            }
            if !seen.insert((target.fd, target.file)) {
                findings.add(&path, format!("target {} stands there twice", target.fd));
            }
        }
    }
    // Under way: in a message that waits in a socket.
    let sockets = image.files.values().filter_map(|file| match &file.kind {
        FileKind::UnixSocket(socket) => Some(socket),
        _ => None,
    });
    held.extend(sockets.flat_map(|socket| socket.messages()).flat_map(|message| message.files.iter().copied()));
    for &id in image.files.keys().filter(|id| !held.contains(id)) {
        findings.add(&file_entry(id), "no process has it open");
    }
}

/// What is wrong with a description taken by itself.
fn description(file: &File) -> Vec<String> {
    let mut problems = kind(&file.kind);
    let mut add = |problem: String| problems.push(problem);
    if i64::try_from(file.position).is_err() {
        add(format!("position {}: offsets are below 2^63", file.position));
    }
    if matches!(file.kind, FileKind::PathOnly(_)) && !file.flags.contains(OpenFlags::O_PATH) {
        add("flags: such a place is open with O_PATH only".to_owned());
    }
    let writes = file.flags.0 & (OpenFlags::O_WRONLY.0 | OpenFlags::O_RDWR.0) != 0;
    if let FileKind::Regular(RegularFile { if_changed: IfChanged::Append, .. }) = file.kind
        && !writes
    {
        add("if_changed: append: it is not open for writing".to_owned());
    }
    let is_at_end = matches!(
        file.kind,
        FileKind::Pseudo(PseudoFile { at_end: true, .. }) | FileKind::EndedTask(EndedTask { at_end: true, .. })
    );
    if is_at_end && file.position != 0 {
        add(format!("position {}: it is at its end, wherever that is", file.position));
    }
    if matches!(file.kind, FileKind::EndedTask(_)) && writes {
        add("flags: such a file is carried when it is open for reading only".to_owned());
    }
    if let FileKind::Directory(Directory { listing: None, .. }) = file.kind
        && file.position != 0
    {
        add(format!("position {}: of which listing, `listing` must say", file.position));
    }
    problems
}

/// What is wrong with what a description is open on.
fn kind(kind: &FileKind) -> Vec<String> {
    let path = |path| absolute(path).map(|problem| format!("path: {problem}"));
    let problems = match kind {
        FileKind::Regular(file) => {
            let from = match &file.if_changed {
                IfChanged::Replace(saved) => absolute(&saved.from),
                _ => None,
            };
            vec![
                path(&file.path),
                time(file.modified).map(|problem| format!("modified: {problem}")),
                from.map(|problem| format!("if_changed: from: {problem}")),
            ]
        }
        // Whether it is there, `unnamed` and `mqueue` look.
        FileKind::Unnamed(_) | FileKind::MessageQueue(_) => vec![],
        FileKind::Directory(directory) => {
            let modified = directory.listing.as_ref().and_then(|listing| time(listing.modified));
            vec![path(&directory.path), modified.map(|problem| format!("listing: modified: {problem}"))]
        }
        FileKind::PathOnly(place) => vec![path(&place.path)],
        FileKind::Pseudo(file) => vec![path(&file.path)],
        FileKind::EndedTask(record) => vec![ended::problem(record)],
        FileKind::Device(device) => vec![path(&device.path)],
        FileKind::Pipe(one) => vec![pipe(one)],
        FileKind::Fifo(fifo) => vec![path(&fifo.path), pipe(&fifo.pipe)],
        FileKind::Eventfd(eventfd) => {
            // The one value that write(2) refuses (fs/eventfd.c, v6.18).
            vec![(eventfd.count.0 == u64::MAX).then(|| "count: a counter ends one below 2^64 - 1".to_owned())]
        }
        // Sockets and rings have a check of their own.
        FileKind::Epoll(_)
        | FileKind::UnixSocket(_)
        | FileKind::InetSocket(_)
        | FileKind::NetlinkSocket(_)
        | FileKind::IoUring(_)
        | FileKind::Pidfd(_)
        | FileKind::Namespace(_) => vec![],
        FileKind::Timerfd(timer) => timerfd(timer),
        FileKind::Inotify(instance) => super::watches::inotify(instance),
        FileKind::Fanotify(group) => super::watches::fanotify(group),
        FileKind::Signalfd(signalfd) => {
            vec![super::signals::unblockable(signalfd.mask).map(|problem| format!("mask: {problem}"))]
        }
        FileKind::Tty(tty) => vec![path(&tty.path)],
    };
    problems.into_iter().flatten().collect()
}

fn pipe(pipe: &Pipe) -> Option<String> {
    if pipe.pipe == 0 {
        return Some("pipe 0: pipes are counted from 1".to_owned());
    }
    // F_SETPIPE_SZ rounds up to such a size and reports no other (fs/pipe.c, round_pipe_size, v6.18).
    if pipe.capacity < PAGE_SIZE || pipe.capacity > 1 << 31 || !pipe.capacity.is_power_of_two() {
        return Some(format!("capacity {}: a pipe's is a power of two from 4096 to 2^31", pipe.capacity));
    }
    let Pipe { queued, capacity, packets, .. } = pipe;
    if queued > capacity {
        return Some(format!("queued {queued}: more than its capacity of {capacity}"));
    }
    // Each packet has a page of its own.
    let page = u32::try_from(PAGE_SIZE).unwrap_or(u32::MAX);
    if let Some(odd) = packets.iter().find(|&&packet| packet == 0 || packet > page) {
        return Some(format!("packets: {odd}: a packet has 1 to {page} bytes"));
    }
    if packets.len() as u64 > capacity / PAGE_SIZE {
        return Some(format!("packets: {} do not fit into {capacity} bytes, each in a page of its own", packets.len()));
    }
    let sum: u64 = packets.iter().map(|&packet| u64::from(packet)).sum();
    (!packets.is_empty() && sum != *queued).then(|| format!("packets: {sum} bytes, but queued says {queued}"))
}

fn timerfd(timer: &Timerfd) -> Vec<Option<String>> {
    const CLOCKS: [u32; 5] = [0, 1, 7, 8, 9];
    const SETTIME_FLAGS: u32 = 3;
    vec![
        (!CLOCKS.contains(&timer.clock)).then(|| format!("clock {}: timerfd_create(2) takes {CLOCKS:?}", timer.clock)),
        (timer.settime_flags & !SETTIME_FLAGS != 0)
            .then(|| format!("settime_flags {:#x}: timerfd_settime(2) takes bits 0 and 1", timer.settime_flags)),
        duration(timer.remaining).map(|problem| format!("remaining: {problem}")),
        duration(timer.interval).map(|problem| format!("interval: {problem}")),
    ]
}

/// What a pidfd names is there, alive or a zombie.
fn pidfds(image: &Image, findings: &mut Findings) {
    let threads = || image.processes.values().flat_map(|process| process.threads.values());
    let is_zombie = |pid| threads().flat_map(|thread| &thread.zombies).any(|zombie| zombie.pid == pid);
    for (&id, file) in &image.files {
        let FileKind::Pidfd(Pidfd { pid: Some(pid), .. }) = file.kind else { continue };
        if !image.processes.contains_key(&pid) && !is_zombie(pid) {
            findings.add(&file_entry(id), format!("pid: there is no process {pid}"));
        }
    }
}

/// All ends of a pipe say the same about it.
fn pipes(image: &Image, findings: &mut Findings) {
    let mut first = BTreeMap::new();
    let is_fifo = |kind: &FileKind| matches!(kind, FileKind::Fifo(_));
    let writes = |flags: OpenFlags| flags.0 & (OpenFlags::O_WRONLY.0 | OpenFlags::O_RDWR.0) != 0;
    let ends = image.files.iter().filter(|(_, file)| writes(file.flags));
    let writers: BTreeMap<u32, FileId> = ends.filter_map(|(&id, file)| Some((file.pipe()?.pipe, id))).collect();
    for (&id, file) in &image.files {
        let Some(pipe) = file.pipe() else { continue };
        let (other, theirs, other_kind) = *first.entry(pipe.pipe).or_insert((id, pipe, &file.kind));
        let other = file_entry(other);
        let number = pipe.pipe;
        if pipe.capacity != theirs.capacity {
            let (ours, theirs) = (pipe.capacity, theirs.capacity);
            findings.add(&file_entry(id), format!("capacity {ours}, but {other} says {theirs} of pipe {number}"));
        }
        if pipe.queued != theirs.queued {
            let (ours, theirs) = (pipe.queued, theirs.queued);
            findings.add(&file_entry(id), format!("queued {ours}, but {other} says {theirs} of pipe {number}"));
        }
        if pipe.packets != theirs.packets {
            findings.add(&file_entry(id), format!("packets: {other} has others of pipe {number}"));
        }
        if is_fifo(&file.kind) != is_fifo(other_kind) {
            findings.add(&file_entry(id), format!("pipe {number}: one of this and {other} has a name"));
        }
        if let FileKind::Fifo(fifo) = &file.kind
            && fifo.awaits_writer
            && let Some(&writer) = writers.get(&number)
        {
            findings.add(&file_entry(id), format!("awaits_writer: {} is open for writing", file_entry(writer)));
        }
    }
}

/// An epoll instance cannot, through others, watch itself (epoll_ctl(2), ELOOP). Depth first with a stack of our own:
/// how deep the nesting goes is up to the image.
fn circles(image: &Image, findings: &mut Findings) {
    let watched = |id: FileId| match image.files.get(&id).map(|file| &file.kind) {
        Some(FileKind::Epoll(epoll)) => epoll.targets.as_slice(),
        _ => &[],
    };
    let mut done = BTreeSet::new();
    let instances = image.files.iter().filter(|(_, file)| matches!(file.kind, FileKind::Epoll(_)));
    for (&start, _) in instances {
        let mut open = BTreeSet::new();
        let mut stack = vec![(start, 0)];
        while let Some((id, next)) = stack.pop() {
            if done.contains(&id) {
                continue;
            }
            open.insert(id);
            let Some(target) = watched(id).get(next) else {
                open.remove(&id);
                done.insert(id);
                continue;
            };
            stack.push((id, next + 1));
            if open.contains(&target.file) {
                findings.add(&file_entry(id), format!("target {}: the epoll instances watch each other", target.fd));
            } else {
                stack.push((target.file, 0));
            }
        }
    }
}

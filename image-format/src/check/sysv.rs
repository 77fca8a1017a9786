//! `sysv.*`: objects the kernel can make under their ids, and processes that use what is there.

use super::Findings;
use super::memory::huge_page_size;
use crate::image::{Image, ProcessImage};
use crate::layout::{MANIFEST, NAMESPACES, SYSV_MSG, SYSV_SEM, SYSV_SHM, process_file};
use crate::manifest::NamespaceKind;
use crate::memory::Backing;
use crate::sysv::{MessageQueue, Permissions, SemaphoreAdjustment, SemaphoreSet, SharedSegment, SysV};
use crate::types::{PAGE_SIZE, Pid};
use std::collections::{BTreeMap, BTreeSet};

/// IPCMNI: an id is this times a count, and a place in the table (ipc/util.h, v6.18).
const PLACES: u32 = 1 << 15;
/// SEMVMX (include/uapi/linux/sem.h, v6.18).
const SEMAPHORE_MAX: u32 = 32767;
/// SEMMSL's default, which a new namespace has.
const SET_MAX: usize = 32000;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    objects(&image.sysv, |path, index, problem| findings.line(path, index, problem));
    let SysV { segments, semaphores, queues } = &image.sysv;
    // They would become the host's.
    let any = !(segments.is_empty() && semaphores.is_empty() && queues.is_empty());
    if any && image.manifest.container.shares(NamespaceKind::Ipc) {
        findings.add(MANIFEST, "container.host_namespaces: ipc: System V objects take a namespace of their own");
    }
    for (&pid, process) in &image.processes {
        attachments(pid, process, image, findings);
        adjustments(pid, &process.semadj, &image.ipc_of_process(pid).1.semaphores, findings);
    }
}

/// The objects of an ipc namespace apart, which a line of `namespaces` has.
pub(super) fn apart(of: &SysV, index: u64, findings: &mut Findings) {
    objects(of, |path, object, problem| {
        let kind = match path {
            SYSV_SHM => "segments",
            SYSV_SEM => "semaphores",
            _ => "queues",
        };
        findings.line(NAMESPACES, index, format!("{kind}: number {}: {problem}", object + 1));
    });
}

/// What is wrong with the objects of a namespace, told by the file that they have if it is the container's own, and the line there.
fn objects(of: &SysV, mut tell: impl FnMut(&str, u64, String)) {
    let SysV { segments, semaphores, queues } = of;
    lines(segments, |s| (s.id, &s.permissions), segment, |index, problem| tell(SYSV_SHM, index, problem));
    lines(semaphores, |s| (s.id, &s.permissions), set, |index, problem| tell(SYSV_SEM, index, problem));
    lines(queues, |q| (q.id, &q.permissions), queue, |index, problem| tell(SYSV_MSG, index, problem));
}

/// What objects of any kind have in common, and the kind's own.
fn lines<T>(
    lines: &[T],
    identity: impl Fn(&T) -> (u32, &Permissions),
    own: impl Fn(&T) -> Option<String>,
    mut tell: impl FnMut(u64, String),
) {
    let mut places = BTreeSet::new();
    let mut keys = BTreeSet::new();
    for (index, line) in (0..).zip(lines) {
        let (id, permissions) = identity(line);
        let Permissions { key, mode, .. } = permissions;
        let problems = [
            i32::try_from(id).is_err().then(|| format!("id {id}: ids are below 2^31")),
            (!places.insert(id % PLACES)).then(|| format!("id {id}: has the place of another in the kernel's table")),
            u32::try_from(key.0).is_err().then(|| format!("key {key}: keys have 32 bits")),
            (key.0 != 0 && !keys.insert(key.0)).then(|| format!("key {key}: another has it")),
            (mode.0 > 0o777).then(|| format!("mode {mode}: permissions are nine bits")),
            own(line),
        ];
        for problem in problems.into_iter().flatten() {
            tell(index, problem);
        }
    }
}

fn segment(segment: &SharedSegment) -> Option<String> {
    if segment.destroyed && segment.permissions.key.0 != 0 {
        return Some(format!("key {}: a destroyed segment has none", segment.permissions.key));
    }
    let size = segment.size;
    let pages = (segment.page_size != PAGE_SIZE).then(|| huge_page_size(segment.page_size)).flatten();
    pages.or_else(|| (size == 0 || i64::try_from(size).is_err()).then(|| format!("size {size}: no segment has that")))
}

fn set(set: &SemaphoreSet) -> Option<String> {
    let count = set.values.len();
    if count == 0 || count > SET_MAX {
        return Some(format!("values: a set has 1 to {SET_MAX} semaphores, not {count}"));
    }
    let beyond = set.values.iter().find(|&&value| value > SEMAPHORE_MAX);
    beyond.map(|value| format!("values: {value} is beyond {SEMAPHORE_MAX}"))
}

fn queue(queue: &MessageQueue) -> Option<String> {
    let typed = |kind: u64| kind > 0 && i64::try_from(kind).is_ok();
    if let Some(message) = queue.messages.iter().find(|message| !typed(message.kind)) {
        return Some(format!("messages: type {} is not from 1 to 2^63 - 1", message.kind));
    }
    (queue.queued() > queue.capacity)
        .then(|| format!("messages: {} bytes are more than its capacity of {}", queue.queued(), queue.capacity))
}

/// Attachments are of segments that are there, and whole.
fn attachments(pid: Pid, process: &ProcessImage, image: &Image, findings: &mut Findings) {
    let path = process_file(pid, "mem.segments");
    // What must follow: the address, the segment, the offset.
    let mut open: Option<(u64, u32, u64)> = None;
    for (index, segment) in (0..).zip(&process.segments) {
        let piece = match &segment.backing {
            Backing::SysvShm(piece) => Some((segment.start.0, piece.segment, piece.offset)),
            _ => None,
        };
        let expected = open.take();
        if let Some((at, id, offset)) = expected.filter(|_| expected != piece) {
            findings.line(&path, index, format!("byte {offset} of the System V segment {id} belongs at {at:#x}"));
        }
        let Some((_, id, offset)) = piece else { continue };
        let Some((_, of)) = image.segment_of(pid, id) else {
            findings.line(&path, index, format!("there is no System V segment {id}"));
            continue;
        };
        let cut = |at: u64| of.page_size != PAGE_SIZE && at.checked_rem(of.page_size) != Some(0);
        if cut(segment.start.0) || cut(segment.end.0) {
            let reason = format!("the System V segment {id} consists of huge pages, and the mapping of no whole ones");
            findings.line(&path, index, reason);
            continue;
        }
        let whole = of.attached_size();
        let end = offset.saturating_add(segment.end.0.saturating_sub(segment.start.0));
        if end > whole {
            findings.line(&path, index, format!("it passes the end of the System V segment {id}"));
        } else if offset > 0 && expected != piece {
            findings.line(
                &path,
                index,
                format!("the System V segment {id} is attached without its first {offset} bytes"),
            );
        } else if end < whole {
            open = Some((segment.end.0, id, end));
        }
    }
    if let Some((at, id, offset)) = open {
        findings.add(&path, format!("byte {offset} of the System V segment {id} belongs at {at:#x}"));
    }
}

fn adjustments(pid: Pid, lines: &[SemaphoreAdjustment], sets: &[SemaphoreSet], findings: &mut Findings) {
    let path = process_file(pid, "sysv.semadj");
    let sizes: BTreeMap<u32, usize> = sets.iter().map(|set| (set.id, set.values.len())).collect();
    let mut seen = BTreeSet::new();
    for (index, line) in (0..).zip(lines) {
        let SemaphoreAdjustment { set, adjustments } = line;
        let count = adjustments.len();
        let problem = match sizes.get(set) {
            None => Some(format!("there is no semaphore set {set}")),
            Some(&size) if size != count => {
                Some(format!("{count} adjustments of set {set}, which has {size} semaphores"))
            }
            Some(_) if !seen.insert(set) => Some(format!("set {set} stands there twice")),
            Some(_) => {
                let beyond = adjustments.iter().find(|value| value.unsigned_abs() > SEMAPHORE_MAX);
                beyond.map(|value| format!("adjustment {value} is beyond {SEMAPHORE_MAX}"))
            }
        };
        if let Some(problem) = problem {
            findings.line(&path, index, problem);
        }
    }
}

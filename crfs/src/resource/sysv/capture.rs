//! From the ipc namespace to its records.

use super::super::Findings;
use super::super::container::inside::{IPC, inside};
use super::super::contents::mapped_here;
use super::super::huge_pages;
use crate::failure::{Doing, Failure, Kind};
use crfs_sys::sysv::{self, Attachment};
use image_format::layout::{self, SYSV_MSG, SYSV_SEM, SYSV_SHM};
use image_format::sysv::{Message, MessageQueue, Permissions, SemaphoreSet, SharedSegment, SysV};
use image_format::types::PAGE_SIZE;
use image_format::{Hex, Octal};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

/// Raw files of the image that were read, by path.
pub type Contents = BTreeMap<String, Vec<u8>>;

/// Bits of a segment's mode beside the permissions (include/linux/shm.h, v6.18).
const SHM_DEST: u32 = 0o1000;
const SHM_LOCKED: u32 = 0o2000;

/// What a new namespace allows; whatever differs was changed inside.
const LIMITS: [(&str, &str); 7] = [
    ("msgmax", "8192"),
    ("msgmnb", "16384"),
    ("msgmni", "32000"),
    ("sem", "32000 1024000000 500 32000"),
    ("shm_rmid_forced", "0"),
    ("shmmax", "18446744073692774399"),
    ("shmmni", "4096"),
];

/// Captures every object of the ipc namespace that a process (host pid) is in, which the image numbers `namespace`. Of segments in `attached`,
/// by id with a link to a mapping, the contents are not read: they can be had through a process.
///
/// The caller must have one thread.
///
/// # Errors
/// When the namespace cannot be joined, or an object changes although everything stands still ([`Kind::Stale`]).
pub fn capture(
    (namespace, process): (u32, i32),
    attached: &BTreeMap<u32, PathBuf>,
) -> Result<(SysV, Contents), Failure> {
    inside(process, &[IPC], || {
        let mut contents = Contents::new();
        let records = SysV {
            segments: segments(namespace, attached, &mut contents)?,
            semaphores: semaphores()?,
            queues: queues(namespace, &mut contents)?,
        };
        Ok((records, contents))
    })
}

/// The limits of the ipc namespace of a process (host pid) that were changed, as assignments.
///
/// The caller must have one thread.
///
/// # Errors
/// When the namespace cannot be joined.
pub(in crate::resource) fn changed(process: i32) -> Result<Vec<String>, Failure> {
    inside(process, &[IPC], || {
        Ok(changed_limits().into_iter().map(|(name, value, _)| format!("kernel.{name} = {value}")).collect())
    })
}

/// The names of limits of the own namespace that were changed, with what they are and what they were.
fn changed_limits() -> Vec<(&'static str, String, &'static str)> {
    let value = |name: &str| {
        // Absent where the kernel has no System V IPC.
        let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
        Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let limits = LIMITS.into_iter().filter_map(|(name, default)| Some((name, value(name)?, default)));
    limits.filter(|(_, value, default)| value != default).collect()
}

/// Obstacles of limits of the ipc namespace of the first process (host pid) that were changed.
///
/// The caller must have one thread.
///
/// # Errors
/// When the namespace cannot be joined.
pub fn limits(init: i32, findings: &mut Findings) -> Result<(), Failure> {
    for (name, value, default) in inside(init, &[IPC], || Ok(changed_limits()))? {
        findings.block(
            "sysv.shm",
            format!("the limit kernel.{name} of the ipc namespace is {value} in the place of {default}, which is not carried"),
            "Set it back (sysctl, inside the container)",
        );
    }
    Ok(())
}

/// The lines of a file of /proc/sysvipc by column: the names stand in its first line.
fn table(kind: &str) -> Result<Vec<BTreeMap<String, String>>, Failure> {
    let path = format!("/proc/sysvipc/{kind}");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing(|| format!("{path}: reading"))?,
    };
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let row =
        |line: &str| names.iter().zip(line.split_whitespace()).map(|(&n, v)| (n.to_owned(), v.to_owned())).collect();
    Ok(lines.map(row).collect())
}

/// A column as a number of a radix.
fn number<T: TryFrom<i128>>(row: &BTreeMap<String, String>, name: &str, radix: u32) -> Result<T, Failure> {
    let value = row.get(name).and_then(|text| i128::from_str_radix(text, radix).ok());
    let malformed = || Failure::new(Kind::System, format!("/proc/sysvipc: no column {name} as this version knows it"));
    value.and_then(|value| T::try_from(value).ok()).ok_or_else(malformed)
}

fn permissions(row: &BTreeMap<String, String>) -> Result<Permissions, Failure> {
    let key: i32 = number(row, "key", 10)?;
    let mode: u32 = number(row, "perms", 8)?;
    Ok(Permissions {
        key: Hex(key.cast_unsigned().into()),
        mode: Octal(mode & 0o777),
        uid: number(row, "uid", 10)?,
        gid: number(row, "gid", 10)?,
        creator_uid: number(row, "cuid", 10)?,
        creator_gid: number(row, "cgid", 10)?,
    })
}

fn signed(id: u32) -> Result<i32, Failure> {
    i32::try_from(id).doing(|| format!("System V id {id}"))
}

fn segments(
    namespace: u32,
    attached: &BTreeMap<u32, PathBuf>,
    contents: &mut Contents,
) -> Result<Vec<SharedSegment>, Failure> {
    let mut segments = Vec::new();
    for row in table("shm")? {
        let id = number(&row, "shmid", 10)?;
        let mode: u32 = number(&row, "perms", 8)?;
        let page_size = match attached.get(&id) {
            Some(link) => huge_pages::page_size(link),
            None => copy_segment(signed(id)?).map(|(page_size, bytes)| {
                contents.insert(layout::segment_data(namespace, id), bytes);
                page_size
            }),
        };
        let page_size = page_size.doing(|| format!("{SYSV_SHM}: attaching segment {id}"))?;
        segments.push(SharedSegment {
            id,
            permissions: permissions(&row)?,
            size: number(&row, "size", 10)?,
            page_size,
            locked: mode & SHM_LOCKED != 0,
            destroyed: mode & SHM_DEST != 0,
        });
    }
    Ok(segments)
}

/// Bytes of a page, and the contents, of a segment that nobody has attached.
fn copy_segment(id: i32) -> std::io::Result<(u64, Vec<u8>)> {
    let here = Attachment::new(id, false)?;
    let link = mapped_here(here.address())?;
    let page_size = huge_pages::page_size(&link)?;
    // An attachment of huge pages is longer than it says.
    let bytes = if page_size == PAGE_SIZE { here.bytes() } else { fs::read(link)? };
    Ok((page_size, bytes))
}

fn semaphores() -> Result<Vec<SemaphoreSet>, Failure> {
    let set = |row: BTreeMap<String, String>| {
        let id = number(&row, "semid", 10)?;
        let count = number(&row, "nsems", 10)?;
        let values = sysv::semaphore_values(signed(id)?, count).doing(|| format!("{SYSV_SEM}: reading set {id}"))?;
        Ok(SemaphoreSet { id, permissions: permissions(&row)?, values: values.into_iter().map(u32::from).collect() })
    };
    table("sem")?.into_iter().map(set).collect()
}

fn queues(namespace: u32, contents: &mut Contents) -> Result<Vec<MessageQueue>, Failure> {
    let mut queues = Vec::new();
    for row in table("msg")? {
        let id = number(&row, "msqid", 10)?;
        let (count, bytes): (usize, usize) = (number(&row, "qnum", 10)?, number(&row, "cbytes", 10)?);
        let capacity = sysv::queue_capacity(signed(id)?).doing(|| format!("{SYSV_MSG}: asking queue {id}"))?;
        let mut messages = Vec::with_capacity(count);
        let mut data = Vec::with_capacity(bytes);
        for place in 0..count {
            let copied = sysv::copy_message(signed(id)?, place, bytes);
            let copied = copied.doing(|| format!("{SYSV_MSG}: copying messages of queue {id}"))?;
            let (kind, text) = copied.ok_or_else(|| {
                Failure::new(Kind::Stale, format!("{SYSV_MSG}: queue {id} changes although its users stand still"))
            })?;
            messages.push(Message { kind: kind.cast_unsigned(), size: text.len() as u64 });
            data.extend(text);
        }
        contents.insert(layout::queue_data(namespace, id), data);
        queues.push(MessageQueue { id, permissions: permissions(&row)?, capacity, messages });
    }
    Ok(queues)
}

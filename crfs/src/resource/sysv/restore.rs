//! From the records to the objects of a new ipc namespace.

use super::super::container::inside::{IPC, inside};
use super::super::contents::mapped_here;
use super::super::huge_pages;
use crate::copy::{Content, Contents};
use crate::failure::{Doing, Failure, Kind};
use crfs_sys::sysv::{self, Attachment, Owner};
use image_format::layout::{self, SYSV_MSG, SYSV_SEM, SYSV_SHM};
use image_format::sysv::{MessageQueue, Permissions, SemaphoreSet, SharedSegment, SysV};
use image_format::types::PAGE_SIZE;
use nix::unistd::{Gid, Uid, setegid, seteuid};
use std::fs::{self, File};
use std::path::Path;

/// Bytes that are copied at a time.
const PART: usize = 1 << 20;

/// Makes every object in the ipc namespace of the first process (host pid). `staging` holds what is queued. The segments are returned
/// attached, so that none of them goes before its processes have it.
///
/// The caller must have one thread.
///
/// # Errors
/// [`Kind::Incompatible`] when the kernel refuses one as this host is set up.
pub fn make(init: i32, records: &SysV, staging: &Path, contents: &Contents<'_>) -> Result<Vec<Attachment>, Failure> {
    if *records == SysV::default() {
        return Ok(Vec::new());
    }
    inside(init, &[IPC], || make_here((0, records), staging, contents))
}

/// The same in the caller's ipc namespace, which the image numbers so.
///
/// # Errors
/// As [`make`].
pub fn make_here(
    (namespace, records): (u32, &SysV),
    staging: &Path,
    contents: &Contents<'_>,
) -> Result<Vec<Attachment>, Failure> {
    let mut attached = Vec::new();
    for record in &records.segments {
        attached.push(segment(namespace, record, contents)?);
    }
    for record in &records.semaphores {
        semaphores(record)?;
    }
    for record in &records.queues {
        queue(namespace, record, staging)?;
    }
    Ok(attached)
}

/// Asks for the id, and makes an object as the user who had made it.
fn as_creator(
    (kind, path, id): (&str, &str, u32),
    permissions: &Permissions,
    make: impl FnOnce(i32) -> nix::Result<i32>,
) -> Result<(i32, Owner), Failure> {
    let doing = || format!("{path}: making id {id}");
    let wanted = i32::try_from(id).doing(doing)?;
    fs::write(format!("/proc/sys/kernel/{kind}_next_id"), id.to_string()).doing(doing)?;
    let key = u32::try_from(permissions.key.0).doing(doing)?.cast_signed();
    let Permissions { mode, uid, gid, creator_uid, creator_gid, .. } = *permissions;
    // The group first: another user may not.
    setegid(Gid::from_raw(creator_gid)).doing(doing)?;
    let made = seteuid(Uid::from_raw(creator_uid)).and_then(|()| make(key));
    seteuid(Uid::from_raw(0)).and_then(|()| setegid(Gid::from_raw(0))).doing(|| "going back to the own user")?;
    // Another user's process could not be traced, nor trace: the change of users left this mark.
    nix::sys::prctl::set_dumpable(true).doing(|| "going back to the own user")?;
    let made = made.map_err(|errno| Failure::new(Kind::Incompatible, format!("{}: {}", doing(), errno.desc())))?;
    if made != wanted {
        return Err(Failure::new(Kind::System, format!("{path}: id {id} is taken, the kernel gave {made}")));
    }
    Ok((made, Owner { uid, gid, mode: mode.0 }))
}

fn segment(namespace: u32, record: &SharedSegment, contents: &Contents<'_>) -> Result<Attachment, Failure> {
    let SharedSegment { id, permissions, size, page_size, .. } = record;
    let mode = permissions.mode.0;
    let huge = *page_size != PAGE_SIZE;
    let made = as_creator(("shm", SYSV_SHM, *id), permissions, |key| match huge {
        true => sysv::make_huge_segment(key, *size, mode, *page_size),
        false => sysv::make_segment(key, *size, mode),
    });
    let (made, owner) = match huge {
        true => made.doing(|| format!("huge pages of {page_size} bytes, of which nr_hugepages must leave enough"))?,
        false => made?,
    };
    let doing = || format!("{SYSV_SHM}: segment {id}");
    let attached = Attachment::new(made, true).doing(doing)?;
    let data = layout::segment_data(namespace, *id);
    let filled = match huge {
        true => fill_huge(&attached, *page_size, contents.open(&data)?),
        false => fill(&attached, contents.open(&data)?),
    };
    filled.doing(|| format!("{data}: copying it"))?;
    sysv::own_segment(made, owner).doing(doing)?;
    if record.locked {
        sysv::lock_segment(made).doing(doing)?;
    }
    if record.destroyed {
        sysv::remove_segment(made).doing(doing)?;
    }
    Ok(attached)
}

fn fill(attached: &Attachment, mut content: Content<'_>) -> std::io::Result<()> {
    content.each_part(PART, |at, part| {
        let at = usize::try_from(at).map_err(|_| std::io::ErrorKind::FileTooLarge)?;
        Ok(attached.write(at, part)?)
    })
}

/// The same for a segment of huge pages, through its file: the attachment is longer than it says.
fn fill_huge(attached: &Attachment, page_size: u64, mut content: Content<'_>) -> std::io::Result<()> {
    let segment = File::options().read(true).write(true).open(mapped_here(attached.address())?)?;
    content.each_part(PART, |at, part| huge_pages::write(&segment, page_size, part, at))
}

fn semaphores(record: &SemaphoreSet) -> Result<(), Failure> {
    let SemaphoreSet { id, permissions, values } = record;
    let mode = permissions.mode.0;
    let (made, owner) =
        as_creator(("sem", SYSV_SEM, *id), permissions, |key| sysv::make_semaphores(key, values.len(), mode))?;
    let doing = || format!("{SYSV_SEM}: set {id}");
    let values: Vec<u16> = values.iter().map(|&v| u16::try_from(v)).collect::<Result<_, _>>().doing(doing)?;
    sysv::set_semaphore_values(made, &values).doing(doing)?;
    sysv::own_semaphores(made, owner).doing(doing)
}

fn queue(namespace: u32, record: &MessageQueue, staging: &Path) -> Result<(), Failure> {
    let MessageQueue { id, permissions, capacity, messages } = record;
    let (made, owner) =
        as_creator(("msg", SYSV_MSG, *id), permissions, |key| sysv::make_queue(key, permissions.mode.0))?;
    let doing = || format!("{SYSV_MSG}: queue {id}");
    let data = fs::read(staging.join(layout::queue_data(namespace, *id))).doing(doing)?;
    // Raising a queue's capacity takes CAP_SYS_RESOURCE, raising the namespace's limits for the moment does not.
    let longest = messages.iter().map(|message| message.size).max().unwrap_or(0);
    let limits = [Limit::raise("msgmnb", *capacity).doing(doing)?, Limit::raise("msgmax", longest).doing(doing)?];
    let filled = sysv::own_queue(made, owner, *capacity).and_then(|()| {
        let mut rest = data.as_slice();
        messages.iter().try_for_each(|message| {
            let size = usize::try_from(message.size).unwrap_or(usize::MAX).min(rest.len());
            let (text, after) = rest.split_at(size);
            rest = after;
            sysv::send_message(made, message.kind.cast_signed(), text)
        })
    });
    limits.into_iter().flatten().try_for_each(Limit::put_back).doing(doing)?;
    filled.map_err(|errno| Failure::new(Kind::Incompatible, format!("{}: {}", doing(), errno.desc())))
}

/// A limit of the namespace that was raised for a moment.
struct Limit {
    path: String,
    before: String,
}

impl Limit {
    /// Raises it to `least`; None when it is that high.
    fn raise(name: &str, least: u64) -> std::io::Result<Option<Self>> {
        let path = format!("/proc/sys/kernel/{name}");
        let before = fs::read_to_string(&path)?;
        if before.trim().parse::<u64>().is_ok_and(|now| now >= least) {
            return Ok(None);
        }
        fs::write(&path, least.to_string())?;
        Ok(Some(Limit { path, before }))
    }

    fn put_back(self) -> std::io::Result<()> {
        fs::write(self.path, self.before)
    }
}

//! From fdinfo to the record.

use crate::mountinfo::Mount;
use crate::resource::descriptor::holders::Kernel;
use crate::resource::descriptor::place::OpenPlace;
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use crate::resource::mount::mount_of;
use crate::resource::watched_inode::{WatchedInode, device, mounts_seen, value};
use crfs_sys::fanotify;
use image_format::fanotify::{EVENTS, Fanotify, FanotifyMark, GROUP_FLAGS, Marked, PERMISSIONS, UNLIMITED_QUEUE};
use image_format::{Bytes, Hex};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

const CLOSE: &str = "Have the program close it before the freeze.";
/// `FANOTIFY_UNPRIV` (include/linux/fanotify.h, v6.18).
const UNPRIVILEGED: u32 = 1 << 31;

/// What a line of fdinfo is about.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    Group { flags: u64, event_flags: u64 },
    Mark { on: Object, mask: u64, ignored_mask: u64, flags: u64 },
}

#[derive(Debug, PartialEq, Eq)]
enum Object {
    Inode(WatchedInode),
    Mount(u64),
    Filesystem(u64),
}

/// Captures a group. `init`, as the host numbers it, sees the mounts of one that only a message holds. Without `kernel` its processes
/// run, and it is only looked whether its marks can be carried.
pub(in crate::resource) fn capture(
    seen: &Seen,
    place: &OpenPlace,
    init: i32,
    kernel: Option<&Kernel<'_>>,
) -> Result<Fanotify, Refusal> {
    // Before the marks are looked for, which may be told to the group.
    let (unread, unprivileged) = match kernel {
        Some(kernel) => (has_events(seen)?, is_unprivileged(seen, kernel)?),
        None => (false, false),
    };
    let lines: Option<Vec<Line>> = seen.info.beginning("fanotify ").map(parse).collect();
    let lines = lines.ok_or_else(|| Refusal::unknown_fdinfo("a fanotify group", "fanotify"))?;
    let mounts = mounts_seen(seen, init);
    let mut record = Fanotify { flags: Hex(0), event_flags: Hex(0), unprivileged, marks: Vec::new(), unread };
    for line in &lines {
        match line {
            Line::Group { flags, event_flags } => {
                record.flags = Hex(*flags);
                record.event_flags = Hex(*event_flags);
            }
            // A write has cleared what it ignored, and nothing is left of it.
            Line::Mark { mask: 0, ignored_mask: 0, .. } => {}
            Line::Mark { on, mask, ignored_mask, flags } => {
                check_mask(*mask, *ignored_mask)?;
                let (on, path) = on.find(&mounts, place)?;
                let (mask, ignored_mask, flags) = (Hex(*mask), Hex(*ignored_mask), Hex(*flags));
                record.marks.push(FanotifyMark { on, path, mask, ignored_mask, flags });
            }
        }
    }
    check_group(&record)?;
    // The kernel's order is that of a list that a restore would turn around.
    record.marks.sort();
    Ok(record)
}

fn has_events(seen: &Seen) -> Result<bool, Refusal> {
    let queued = seen.duplicate().and_then(|group| fanotify::queued(group.as_fd()));
    let told = |errno: nix::errno::Errno| {
        Refusal::new(format!("a fanotify group does not tell whether events wait in it: {}", errno.desc()), CLOSE)
    };
    queued.map(|events| events > 0).map_err(told)
}

fn is_unprivileged(seen: &Seen, kernel: &Kernel<'_>) -> Result<bool, Refusal> {
    let flags = kernel.fanotify_flags(seen.holder.host, seen.holder.fd).map_err(|error| {
        Refusal::new(
            format!("a fanotify group of which it cannot be told whether its maker had privileges: {error}"),
            "Run the program without fanotify, or on a kernel whose memory layout is known.",
        )
    })?;
    Ok(flags & UNPRIVILEGED != 0)
}

/// Without `fanotify `, all hexadecimal: `flags:0 event-flags:8000`, `ino:2 sdev:fe00000 mflags:0 mask:20 ignored_mask:0 fhandle-bytes:...`,
/// `mnt_id:1f mflags:...`, `sdev:fe00000 mflags:...`.
fn parse(line: &str) -> Option<Line> {
    let number = |name| value(line, name);
    let on = match line.split_once(':')?.0 {
        "flags" => return Some(Line::Group { flags: number("flags")?, event_flags: number("event-flags")? }),
        "ino" => Object::Inode(WatchedInode::parse(line)?),
        "mnt_id" => Object::Mount(number("mnt_id")?),
        "sdev" => Object::Filesystem(number("sdev")?),
        // A namespace: what is told of it nobody has asked for without FAN_REPORT_MNT.
        "mnt_ns" => return Some(Line::Mark { on: Object::Mount(0), mask: 0, ignored_mask: 0, flags: 0 }),
        _ => return None,
    };
    let (mask, ignored_mask) = (number("mask")?, number("ignored_mask")?);
    Some(Line::Mark { on, mask, ignored_mask, flags: number("mflags")? })
}

fn check_mask(mask: u64, ignored_mask: u64) -> Result<(), Refusal> {
    if mask & PERMISSIONS != 0 {
        return Err(Refusal::new(
            "a fanotify group decides on accesses (FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_OPEN_EXEC_PERM, FAN_PRE_ACCESS), so that others \
             would wait while it is frozen",
            "Have the program remove these marks before the freeze.",
        ));
    }
    let unknown = mask & !EVENTS | ignored_mask & !(EVENTS | PERMISSIONS);
    if unknown == 0 {
        return Ok(());
    }
    Err(Refusal::new(format!("a fanotify group watches for events that are not carried yet ({unknown:#x})"), CLOSE))
}

fn check_group(group: &Fanotify) -> Result<(), Refusal> {
    let unknown = group.flags.0 & !GROUP_FLAGS;
    if unknown != 0 {
        return Err(Refusal::new(format!("a fanotify group of a kind that is not carried yet ({unknown:#x})"), CLOSE));
    }
    if group.unread && group.flags.0 & UNLIMITED_QUEUE != 0 {
        return Err(Refusal::new(
            "events wait in a fanotify group without limit (FAN_UNLIMITED_QUEUE), and nothing could stand for them after a restore",
            "Try again when the program has read them.",
        ));
    }
    Ok(())
}

impl Object {
    /// What it is, with a path inside the container that leads there.
    fn find(&self, mounts: &[Mount], place: &OpenPlace) -> Result<(Marked, Bytes), Refusal> {
        const REMEDY: &str = "Have the program remove the mark, or uncover what is mounted there.";
        match self {
            Object::Inode(inode) => {
                let path = inode.path(mounts, place).ok_or_else(|| inode.refuse("a fanotify group", "mark"))?;
                Ok((Marked::Inode, path))
            }
            Object::Mount(id) => {
                let path =
                    mounts.iter().filter(|mount| u64::from(mount.id) == *id).find_map(|mount| shown(mount, place));
                let reason =
                    || format!("a fanotify group watches mount {id}, to which no path inside the container leads");
                path.map(|path| (Marked::Mount, path)).ok_or_else(|| Refusal::new(reason(), REMEDY))
            }
            Object::Filesystem(number) => {
                let device = device(*number);
                let mut there = mounts.iter().filter(|mount| mount.device == device.as_bytes());
                let path = there.find_map(|mount| shown(mount, place));
                let reason = || {
                    format!(
                        "a fanotify group watches the file system of device {device}, to which no path inside the container leads"
                    )
                };
                path.map(|path| (Marked::Filesystem, path)).ok_or_else(|| Refusal::new(reason(), REMEDY))
            }
        }
    }
}

/// The path of a mount that no other one hides.
fn shown(mount: &Mount, place: &OpenPlace) -> Option<Bytes> {
    let path = Bytes(mount.path.as_os_str().as_bytes().to_vec());
    let there = place.look_at(&path).ok()?;
    (mount_of(&there) == Some(mount.id)).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let group = Line::Group { flags: 0x303, event_flags: 0x88000 };
        assert_eq!(parse("flags:303 event-flags:88000"), Some(group));
        let mark = |on, mask, ignored_mask, flags| Some(Line::Mark { on, mask, ignored_mask, flags });
        let line = "mnt_id:3f mflags:0 mask:20 ignored_mask:0";
        assert_eq!(parse(line), mark(Object::Mount(0x3f), 0x20, 0, 0));
        let line = "sdev:27 mflags:440 mask:20 ignored_mask:40000010";
        assert_eq!(parse(line), mark(Object::Filesystem(0x27), 0x20, 0x4000_0010, 0x440));
        for cut in
            ["", "flags:0", "mnt_id:3f mflags:0 mask:20", "ino:2 sdev:27 mflags:0 mask:1 ignored_mask:0", "new:1"]
        {
            assert_eq!(parse(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn what_others_wait_for_is_refused() {
        let refused = |mask, ignored| check_mask(mask, ignored).err().map(|refusal| refusal.reason);
        assert_eq!(refused(0x20, 0x1_0000), None);
        assert!(refused(0x1_0020, 0).is_some_and(|reason| reason.contains("decides on accesses")));
        assert!(refused(0x0100_0000, 0).is_some_and(|reason| reason.ends_with("(0x1000000)")));
    }

    #[test]
    fn nothing_stands_for_the_events_of_a_queue_without_limit() {
        let group = |flags, unread| {
            let (flags, event_flags) = (Hex(flags), Hex(0));
            check_group(&Fanotify { flags, event_flags, unprivileged: false, marks: Vec::new(), unread })
        };
        assert_eq!(group(0x10, false), Ok(()));
        assert_eq!(group(0, true), Ok(()));
        assert!(group(0x10, true).is_err_and(|refusal| refusal.reason.contains("FAN_UNLIMITED_QUEUE")));
        assert!(group(0x4000, false).is_err_and(|refusal| refusal.reason.ends_with("(0x4000)")));
    }
}

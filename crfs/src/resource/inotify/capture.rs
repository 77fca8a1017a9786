//! From fdinfo to the record.

use crate::mountinfo::Mount;
use crate::resource::descriptor::holders::Kernel;
use crate::resource::descriptor::place::OpenPlace;
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use crate::resource::watched_inode::{WatchedInode, mounts_seen, value};
use crfs_sys::inotify;
use image_format::Hex;
use image_format::files::{Inotify, InotifyWatch};
use std::os::fd::AsFd;

const CLOSE: &str = "Have the program close it before the freeze.";

/// A line of fdinfo.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    wd: u32,
    inode: WatchedInode,
    mask: u64,
}

/// Captures an instance. `init`, as the host numbers it, sees the mounts of one that only a message holds. Without `kernel` its processes
/// run, and it is only looked whether what it watches can be found.
pub(in crate::resource) fn capture(
    seen: &Seen,
    place: &OpenPlace,
    init: i32,
    kernel: Option<&Kernel<'_>>,
) -> Result<Inotify, Refusal> {
    let lines: Option<Vec<Line>> = seen.info.values("inotify wd").map(parse).collect();
    let lines = lines.ok_or_else(|| Refusal::unknown_fdinfo("an inotify instance", "inotify"))?;
    let mounts = mounts_seen(seen, init);
    let mut watches = lines.iter().map(|line| watch(line, &mounts, place)).collect::<Result<Vec<_>, _>>()?;
    // The kernel's order is that of a list that a restore would turn around.
    watches.sort_by_key(|watch| watch.wd);
    let (next_wd, unread) = match kernel {
        Some(kernel) => (next_wd(seen, kernel)?, has_events(seen)?),
        None => (1, false),
    };
    Ok(Inotify { watches, next_wd, unread })
}

/// The number of the next watch, from 1: before the first the kernel says 0, after the last more than there are.
fn next_wd(seen: &Seen, kernel: &Kernel<'_>) -> Result<u32, Refusal> {
    let next = kernel.next_wd(seen.holder.host, seen.holder.fd).map_err(|error| {
        Refusal::new(
            format!("an inotify instance of which the number of the next watch cannot be told: {error}"),
            "Run the program without inotify, or on a kernel whose memory layout is known.",
        )
    })?;
    Ok(if next > i32::MAX.unsigned_abs() { 1 } else { next.max(1) })
}

fn has_events(seen: &Seen) -> Result<bool, Refusal> {
    let queued = seen.duplicate().and_then(|instance| inotify::queued(instance.as_fd()));
    let told = |errno: nix::errno::Errno| {
        Refusal::new(format!("an inotify instance does not tell whether events wait in it: {}", errno.desc()), CLOSE)
    };
    queued.map(|bytes| bytes > 0).map_err(told)
}

/// `1 ino:2 sdev:fe00000 mask:100 ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:0200000000000000`, all hexadecimal.
fn parse(line: &str) -> Option<Line> {
    let wd = u32::from_str_radix(line.split(' ').next()?, 16).ok()?;
    Some(Line { wd, inode: WatchedInode::parse(line)?, mask: value(line, "mask")? })
}

fn watch(line: &Line, mounts: &[Mount], place: &OpenPlace) -> Result<InotifyWatch, Refusal> {
    match line.inode.path(mounts, place) {
        Some(path) => Ok(InotifyWatch { wd: line.wd, path, mask: Hex(line.mask) }),
        None => Err(line.inode.refuse("an inotify instance", "watch")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let line = "1b ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6c";
        let inode = WatchedInode::parse(line).unwrap();
        let expected = Line { wd: 27, inode, mask: 0x0800_afce };
        assert_eq!(parse(line), Some(expected));
        for cut in ["", "1", "1 ino:2 sdev:3 mask:4", "1 ino:2 sdev:3 mask:4 fhandle-type:1 f_handle:0", "g ino:2"] {
            assert_eq!(parse(cut), None, "{cut:?}");
        }
    }
}

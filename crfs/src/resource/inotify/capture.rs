//! From fdinfo to the record.

use crate::mountinfo::{Mount, mounts};
use crate::resource::descriptor::holders::Kernel;
use crate::resource::descriptor::in_flight::IN_FLIGHT;
use crate::resource::descriptor::place::OpenPlace;
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use crfs_sys::{file_handle, inotify};
use image_format::files::{Inotify, InotifyWatch};
use image_format::{Bytes, Hex};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;

const CLOSE: &str = "Have the program close it before the freeze.";

/// A line of fdinfo.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    wd: u32,
    inode: u64,
    /// As the kernel counts: major << 20 | minor.
    device: u32,
    mask: u64,
    kind: i32,
    handle: Vec<u8>,
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
    let viewer = if seen.holder.pid == IN_FLIGHT { init } else { seen.holder.host };
    let text = fs::read(format!("/proc/{viewer}/mountinfo")).unwrap_or_default();
    let mounts = mounts(&text);
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
    let mut words = line.split(' ');
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let wd = hex(words.next()?)?;
    let value = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix(':'));
    let number = |name| hex(value(name)?);
    let text = value("f_handle")?;
    let handle = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok());
    Some(Line {
        wd: wd.try_into().ok()?,
        inode: number("ino")?,
        device: number("sdev")?.try_into().ok()?,
        mask: number("mask")?,
        kind: number("fhandle-type")?.try_into().ok()?,
        handle: handle.collect::<Option<_>>()?,
    })
}

fn watch(line: &Line, mounts: &[Mount], place: &OpenPlace) -> Result<InotifyWatch, Refusal> {
    let Line { wd, inode, device, mask, .. } = *line;
    let device = format!("{}:{}", device >> 20, device & 0xf_ffff);
    let mut there = mounts.iter().filter(|mount| mount.device == device.as_bytes());
    match there.find_map(|mount| path(line, mount, place)) {
        Some(path) => Ok(InotifyWatch { wd, path, mask: Hex(mask) }),
        None => Err(Refusal::new(
            format!(
                "an inotify instance watches inode {inode} of device {device}, to which no path inside the container leads"
            ),
            "Have the program remove the watch. What is there may not have been looked at for long (list its directory and try \
             again), or stands on a file system without file handles (overlay).",
        )),
    }
}

/// The path of a watched inode below one of the mounts of its file system. None where another one has to be tried.
fn path(line: &Line, mount: &Mount, place: &OpenPlace) -> Option<Bytes> {
    let mounted = place.look_at(&Bytes(mount.path.as_os_str().as_bytes().to_vec())).ok()?;
    let kind = mounted.metadata().ok()?.file_type();
    if !kind.is_dir() && !kind.is_file() {
        return None;
    }
    let mounted = File::open(format!("/proc/self/fd/{}", mounted.as_raw_fd())).ok()?;
    let found = File::from(file_handle::open(mounted.as_fd(), line.kind, &line.handle).ok()?);
    let link = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
    let path = place.inside(&link.into_os_string().into_vec())?;
    let (found, there) = (found.metadata().ok()?, place.look(&path).ok()?);
    ((found.dev(), found.ino()) == (there.dev(), there.ino())).then_some(path)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let line = "1b ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6c";
        let handle = vec![0x7e, 0x9e, 0, 0, 0x64, 0x0d, 0x1b, 0x6c];
        let expected = Line { wd: 27, inode: 0x9e7e, device: 0x80_0013, mask: 0x0800_afce, kind: 1, handle };
        assert_eq!(parse(line), Some(expected));
        for cut in ["", "1", "1 ino:2 sdev:3 mask:4", "1 ino:2 sdev:3 mask:4 fhandle-type:1 f_handle:0", "g ino:2"] {
            assert_eq!(parse(cut), None, "{cut:?}");
        }
    }
}

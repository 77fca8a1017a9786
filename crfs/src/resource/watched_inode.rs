//! Inodes that fdinfo of an inotify instance or a fanotify group names, and the paths that lead to them.
//!
//! open_by_handle_at(2) finds one by its file handle, and its link in /proc tells a path.

use super::descriptor::in_flight::IN_FLIGHT;
use super::descriptor::place::OpenPlace;
use super::descriptor::refused::Refusal;
use super::descriptor::seen::Seen;
use crate::mountinfo::{Mount, mounts};
use crfs_sys::file_handle;
use image_format::Bytes;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;

/// An inode as `show_mark_fhandle` tells it (fs/notify/fdinfo.c, v6.18).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WatchedInode {
    inode: u64,
    /// As the kernel counts: major << 20 | minor.
    device: u64,
    kind: i32,
    handle: Vec<u8>,
}

/// The mounts that the holder of what is open sees; of what only a message holds, those of `init`.
pub(super) fn mounts_seen(seen: &Seen, init: i32) -> Vec<Mount> {
    let viewer = if seen.holder.pid == IN_FLIGHT { init } else { seen.holder.host };
    mounts(&fs::read(format!("/proc/{viewer}/mountinfo")).unwrap_or_default())
}

/// The hexadecimal number behind `name:` in a line of words.
pub(super) fn value(line: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(word(line, name)?, 16).ok()
}

/// A device number as mountinfo has it.
pub(super) fn device(number: u64) -> String {
    format!("{}:{}", number >> 20, number & 0xf_ffff)
}

fn word<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix(':'))
}

impl WatchedInode {
    /// From a line with `ino`, `sdev`, `fhandle-type` and `f_handle`.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let text = word(line, "f_handle")?;
        let handle = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok());
        Some(WatchedInode {
            inode: value(line, "ino")?,
            device: value(line, "sdev")?,
            kind: value(line, "fhandle-type")?.try_into().ok()?,
            handle: handle.collect::<Option<_>>()?,
        })
    }

    /// A path inside the container that leads to it.
    pub(super) fn path(&self, mounts: &[Mount], place: &OpenPlace) -> Option<Bytes> {
        let device = device(self.device);
        let mut there = mounts.iter().filter(|mount| mount.device == device.as_bytes());
        there.find_map(|mount| self.path_on(mount, place))
    }

    /// The path below one of the mounts of its file system. None where another one has to be tried.
    fn path_on(&self, mount: &Mount, place: &OpenPlace) -> Option<Bytes> {
        let mounted = place.look_at(&Bytes(mount.path.as_os_str().as_bytes().to_vec())).ok()?;
        let kind = mounted.metadata().ok()?.file_type();
        if !kind.is_dir() && !kind.is_file() {
            return None;
        }
        let mounted = File::open(format!("/proc/self/fd/{}", mounted.as_raw_fd())).ok()?;
        let found = File::from(file_handle::open(mounted.as_fd(), self.kind, &self.handle).ok()?);
        let link = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()?;
        let path = place.inside(&link.into_os_string().into_vec())?;
        let (found, there) = (found.metadata().ok()?, place.look(&path).ok()?);
        ((found.dev(), found.ino()) == (there.dev(), there.ino())).then_some(path)
    }

    /// The refusal where no path does. `whose` watches it, by a `watch` or a mark.
    pub(super) fn refuse(&self, whose: &str, watch: &str) -> Refusal {
        let (inode, device) = (self.inode, device(self.device));
        Refusal::new(
            format!("{whose} watches inode {inode} of device {device}, to which no path inside the container leads"),
            format!(
                "Have the program remove the {watch}. What is there may not have been looked at for long (list its directory and try \
                 again), or stands on a file system without file handles (overlay)."
            ),
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let line = "3 sdev:800013 mflags:40 mask:28 ignored_mask:2 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6c ino:9e7e";
        let handle = vec![0x7e, 0x9e, 0, 0, 0x64, 0x0d, 0x1b, 0x6c];
        assert_eq!(WatchedInode::parse(line), Some(WatchedInode { inode: 0x9e7e, device: 0x80_0013, kind: 1, handle }));
        assert_eq!(device(0x80_0013), "8:19");
        assert_eq!(
            (value(line, "mask"), value(line, "ignored_mask"), value(line, "ed_mask")),
            (Some(0x28), Some(2), None)
        );
    }
}

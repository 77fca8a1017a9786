//! From fdinfo to the record.

use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::{Holder, Seen};
use crfs_sys::kcmp::{Comparison, compare_epoll_target};
use image_format::files::FileKind;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::Pid;
use std::collections::HashMap;
use std::os::fd::AsFd;

/// `EPOLLERR | EPOLLHUP`, which the kernel adds to what a program asks for.
const ALWAYS: u64 = 0x18;
/// `EPOLLONESHOT`
const ONESHOT: u64 = 1 << 30;
/// `EPOLLET`, `EPOLLONESHOT`, `EPOLLWAKEUP`, `EPOLLEXCLUSIVE`: no events.
const MODES: u64 = 0xf << 28;

/// A line of fdinfo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::resource) struct Target {
    /// The number it was added under.
    pub(in crate::resource) fd: i32,
    /// How many lines before it have the same number.
    pub(in crate::resource) nth: u32,
    /// Events and flags.
    pub(in crate::resource) events: u64,
    /// The program's own.
    pub(in crate::resource) data: u64,
    /// Inode number of what is watched.
    pub(in crate::resource) inode: u64,
}

/// What an epoll instance watches, in the kernel's order.
pub(in crate::resource) fn capture(seen: &Seen) -> Result<Vec<Target>, Refusal> {
    let mut count = HashMap::new();
    let lines = seen.info.values("tfd");
    let targets = lines.map(|line| {
        let mut target = parse(line)?;
        let nth = count.entry(target.fd).or_insert(0);
        target.nth = *nth;
        *nth += 1;
        Some(target)
    });
    targets.collect::<Option<Vec<_>>>().ok_or_else(|| Refusal::unknown_fdinfo("an epoll instance", "tfd"))
}

/// `5 events:       19 data: ffffffff  pos:0 ino:40e sdev:10`
fn parse(line: &str) -> Option<Target> {
    let (fd, rest) = line.split_once("events:")?;
    let (events, rest) = rest.split_once("data:")?;
    let mut rest = rest.split_whitespace();
    let data = rest.next()?;
    let inode = rest.find_map(|word| word.strip_prefix("ino:"))?;
    let hex = |text: &str| u64::from_str_radix(text.trim(), 16).ok();
    Some(Target { fd: fd.trim().parse().ok()?, nth: 0, events: hex(events)?, data: hex(data)?, inode: hex(inode)? })
}

impl Target {
    /// Whether its number in the process of `epoll` (a descriptor of the instance) still names what is watched.
    /// `ENOENT`: the target itself is gone.
    pub(in crate::resource) fn is_named_by(&self, epoll: Holder) -> nix::Result<bool> {
        self.is(Holder { fd: self.fd, ..epoll }, epoll)
    }

    /// Whether a descriptor names what is watched by the instance that `epoll` is a descriptor of. `ENOENT`: as above.
    pub(in crate::resource) fn is(&self, one: Holder, epoll: Holder) -> nix::Result<bool> {
        let (process, watcher) = (Pid::from_raw(one.host), Pid::from_raw(epoll.host));
        match compare_epoll_target(process, one.fd, watcher, epoll.fd, self.fd, self.nth) {
            Ok(comparison) => Ok(comparison == Comparison::Equal),
            // The number is closed in this process.
            Err(Errno::EBADF) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// The refusal of a target that nobody in the container has open.
    pub(in crate::resource) fn refuse(&self) -> Refusal {
        Refusal::new(
            format!(
                "an epoll instance watches descriptor {}, which was closed while a duplicate outside the container keeps the file open",
                self.fd
            ),
            "Have the program remove it with EPOLL_CTL_DEL before it closes the descriptor.",
        )
    }
}

/// Whether a target with these events and flags has reported its one event (`EPOLLONESHOT`).
pub(super) fn is_switched_off(events: u64) -> bool {
    events & ONESHOT != 0 && events & !MODES == 0
}

/// Whether a description is ready for anything that epoll reports: so is then what is made of its record.
pub(in crate::resource) fn is_ready(seen: &Seen) -> nix::Result<bool> {
    let duplicate = seen.duplicate()?;
    let any = PollFlags::POLLIN | PollFlags::POLLPRI | PollFlags::POLLOUT;
    Ok(poll(&mut [PollFd::new(duplicate.as_fd(), any)], PollTimeout::ZERO)? > 0)
}

/// The events to record for a target of this kind, or why it cannot be carried. `is_ready`: see [`is_ready`].
pub(in crate::resource) fn check_target(
    target: &Target,
    kind: &FileKind,
    is_ready: impl FnOnce() -> nix::Result<bool>,
) -> Result<u64, Refusal> {
    match kind {
        _ if !is_switched_off(target.events) => Ok(target.events),
        FileKind::Eventfd(_)
        | FileKind::Timerfd(_)
        | FileKind::Signalfd(_)
        | FileKind::Inotify(_)
        | FileKind::Fanotify(_)
        | FileKind::Epoll(_) => Ok(target.events | ALWAYS),
        _ if is_ready() == Ok(true) => Ok(target.events),
        _ => Err(Refusal::new(
            format!(
                "an epoll instance watches descriptor {} with EPOLLONESHOT, its one event was reported, and it is not ready for another",
                target.fd
            ),
            "Try again when the program has armed it again.",
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_line() {
        let line = "3 events: 40000019 data: ffffffffffffffff  pos:0 ino:40e sdev:10";
        assert_eq!(parse(line), Some(Target { fd: 3, nth: 0, events: 0x4000_0019, data: u64::MAX, inode: 0x40e }));
        for cut in ["", "3", "3 events: 19", "3 events: 19 data:", "3 events: 19 data: 1", "x events: 19 data: 1 ino:1"]
        {
            assert_eq!(parse(cut), None, "{cut:?}");
        }
    }

    #[test]
    fn a_target_that_is_switched_off() {
        let target = |events| Target { fd: 3, nth: 0, events, data: 0, inode: 1 };
        let eventfd = FileKind::Eventfd(image_format::files::Eventfd { count: image_format::Hex(0), semaphore: false });
        let device = FileKind::Device(image_format::files::Device { path: "/dev/random".into(), major: 1, minor: 8 });
        let check = |events, kind| check_target(&target(events), kind, || Ok(false));
        assert_eq!(check(0x4000_0000, &eventfd), Ok(0x4000_0018));
        assert_eq!(check(0x4000_0019, &device), Ok(0x4000_0019));
        assert_eq!(check(0x8000_0018, &device), Ok(0x8000_0018));
        assert_eq!(check_target(&target(0xc000_0000), &device, || Ok(true)), Ok(0xc000_0000));
        let refusal = check(0xc000_0000, &device).unwrap_err();
        assert!(refusal.reason.contains("EPOLLONESHOT"), "{refusal:?}");
    }
}

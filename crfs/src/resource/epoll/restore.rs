//! From the record to an empty instance, and to what must be added to it.

use super::capture::is_switched_off;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen::set_status;
use crfs_tracee::Batch;
use image_format::files::{Epoll, EpollTarget, File, FileKind};
use image_format::layout::file_entry;
use image_format::{FileId, Image, Pid};
use nix::sys::epoll::EpollCreateFlags;
use std::os::fd::{AsFd, OwnedFd};

/// An epoll_ctl(2) `EPOLL_CTL_ADD` that a process must make when its descriptors are in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The process, as the container numbers it.
    pub process: Pid,
    /// Who makes the call: the process, or a thread of it with descriptors of its own.
    pub owner: Pid,
    /// The epoll descriptor.
    pub epfd: u32,
    /// The descriptor to add.
    pub fd: u32,
    /// `EPOLL` events and flags.
    pub events: u32,
    /// The program's own 64 bits.
    pub data: u64,
}

/// Makes an instance that watches nothing.
///
/// # Errors
/// When the system refuses.
pub(in crate::resource) fn restore(id: FileId, file: &File) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let epoll = nix::sys::epoll::Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
    let epoll = epoll.doing(|| format!("{object}: creating an epoll instance"))?;
    set_status(epoll.0.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
    Ok(epoll.0)
}

/// What every epoll instance of an image watches, by instance and in the order of the record; those that are switched off come first.
///
/// # Errors
/// [`Kind::BadImage`] for a target that no process has under its number beside the instance.
pub fn registrations(image: &Image) -> Result<Vec<Registration>, Failure> {
    let mut all = Vec::new();
    for (&id, file) in &image.files {
        if let FileKind::Epoll(Epoll { targets }) = &file.kind {
            for target in targets {
                all.push(registration(image, id, target)?);
            }
        }
    }
    // Sorting keeps the order of the others.
    all.sort_by_key(|registration| !is_switched_off(registration.events.into()));
    Ok(all)
}

/// The calls that add a target. Of one that is switched off the index of the call that must answer 1: it takes the one event, and until
/// then no other target of the instance may have any.
pub fn register(batch: &mut Batch, registration: &Registration) -> Option<usize> {
    const ANY: i32 = libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLOUT;
    let Registration { epfd, fd, events, data, .. } = *registration;
    let switched_off = is_switched_off(events.into());
    let events = if switched_off { events | ANY.cast_unsigned() } else { events };
    // struct epoll_event is packed on x86-64.
    let mut event = events.to_ne_bytes().to_vec();
    event.extend_from_slice(&data.to_ne_bytes());
    let event = batch.data(&event);
    let args = [epfd.into(), libc::EPOLL_CTL_ADD.into(), fd.into(), event.into()];
    batch.call(libc::SYS_epoll_ctl, &args, "epoll_ctl(EPOLL_CTL_ADD)");
    let taken = [epfd.into(), event.into(), 1.into(), 0.into()];
    switched_off.then(|| batch.call(libc::SYS_epoll_wait, &taken, "epoll_wait").index())
}

fn registration(image: &Image, id: FileId, target: &EpollTarget) -> Result<Registration, Failure> {
    let bad = |reason: String| Failure::new(Kind::BadImage, format!("{}: targets: {reason}", file_entry(id)));
    let events = u32::try_from(target.events.0).map_err(|_| bad(format!("events {} have 32 bits", target.events)))?;
    let found = image.tables().find_map(|table| {
        let epfd = table.fds.iter().find(|fd| fd.file == id)?.fd;
        let named = table.fds.iter().any(|fd| fd.fd == target.fd && fd.file == target.file);
        named.then_some(Registration {
            process: table.process,
            owner: table.owner,
            epfd,
            fd: target.fd,
            events,
            data: target.data.0,
        })
    });
    found.ok_or_else(|| {
        bad(format!("no process has the instance and, as descriptor {}, {}", target.fd, file_entry(target.file)))
    })
}

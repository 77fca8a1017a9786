//! From the record to an empty instance, and to what must be added to it.

use super::capture::is_switched_off;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen::set_status;
use crfs_tracee::{Arg, Batch};
use image_format::files::{Epoll, EpollTarget, File, FileKind};
use image_format::layout::file_entry;
use image_format::{FileId, Image, Pid};
use nix::sys::epoll::EpollCreateFlags;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What an epoll_ctl(2) `EPOLL_CTL_ADD` adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The descriptor to add.
    pub fd: u32,
    /// `EPOLL` events and flags.
    pub events: u32,
    /// The program's own 64 bits.
    pub data: u64,
}

/// What a process must add when its descriptors are in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The process, as the container numbers it.
    pub process: Pid,
    /// Who makes the call: the process, or a thread of it with descriptors of its own.
    pub owner: Pid,
    /// The epoll descriptor.
    pub epfd: u32,
    /// What it adds.
    pub watch: Watch,
}

/// What must be added while the table of descriptors is still empty, and every number free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyRegistration {
    /// The instance.
    pub epoll: FileId,
    /// What gets the number for a moment.
    pub file: FileId,
    /// What is added.
    pub watch: Watch,
}

/// What every epoll instance of an image watches. Those targets come first that are switched off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registrations {
    /// In the order of the record.
    pub in_place: Vec<Registration>,
    /// By whose table it is: the process, or a thread of it. All of an instance that watches anything under a number that no process with
    /// the instance has it under (any more).
    pub early: BTreeMap<Pid, Vec<EarlyRegistration>>,
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

/// What every epoll instance of an image watches.
///
/// # Errors
/// [`Kind::BadImage`] for events that are none, and when no process has any descriptor.
pub fn registrations(image: &Image) -> Result<Registrations, Failure> {
    let mut all = Registrations::default();
    for (&id, file) in &image.files {
        let FileKind::Epoll(Epoll { targets }) = &file.kind else { continue };
        let in_place: Option<Vec<_>> = targets.iter().map(|target| holder(image, id, target)).collect();
        for (at, target) in targets.iter().enumerate() {
            let watch = watch(id, target)?;
            if let Some(&(process, owner, epfd)) = in_place.as_ref().and_then(|holders| holders.get(at)) {
                all.in_place.push(Registration { process, owner, epfd, watch });
            } else {
                let early = EarlyRegistration { epoll: id, file: target.file, watch };
                all.early.entry(whoever_has(image, id)?).or_default().push(early);
            }
        }
    }
    // Sorting keeps the order of the others.
    all.in_place.sort_by_key(|one| !is_switched_off(one.watch.events.into()));
    all.early.values_mut().for_each(|of_one| of_one.sort_by_key(|one| !is_switched_off(one.watch.events.into())));
    Ok(all)
}

/// The calls that add a target to the instance behind `epfd`. Of one that is switched off the index of the call that must answer 1: it
/// takes the one event, and until then no other target of the instance may have any.
pub fn register(batch: &mut Batch, epfd: Arg, watch: &Watch) -> Option<usize> {
    const ANY: i32 = libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLOUT;
    let &Watch { fd, events, data } = watch;
    let switched_off = is_switched_off(events.into());
    let events = if switched_off { events | ANY.cast_unsigned() } else { events };
    // struct epoll_event is packed on x86-64.
    let mut event = events.to_ne_bytes().to_vec();
    event.extend_from_slice(&data.to_ne_bytes());
    let event = batch.data(&event);
    let args = [epfd, libc::EPOLL_CTL_ADD.into(), fd.into(), event.into()];
    batch.call(libc::SYS_epoll_ctl, &args, "epoll_ctl(EPOLL_CTL_ADD)");
    let taken = [epfd, event.into(), 1.into(), 0.into()];
    switched_off.then(|| batch.call(libc::SYS_epoll_wait, &taken, "epoll_wait").index())
}

/// The same in a table that holds nothing below `link`, a pidfd of the worker: instance and target are pulled from there and closed again.
///
/// # Errors
/// When one of them was not opened, which is a mistake of the caller.
pub fn register_early(
    batch: &mut Batch,
    one: &EarlyRegistration,
    opened: &BTreeMap<FileId, OwnedFd>,
    link: u32,
) -> Result<Option<usize>, Failure> {
    let pull = |batch: &mut Batch, id| {
        let missing = || Failure::new(Kind::System, format!("{}: was not opened", file_entry(id)));
        let source = opened.get(&id).ok_or_else(missing)?.as_raw_fd();
        Ok(batch.call(libc::SYS_pidfd_getfd, &[link.into(), source.into(), 0u32.into()], "pidfd_getfd"))
    };
    let EarlyRegistration { epoll, file, watch } = *one;
    // The lowest free number, which is 0.
    let target = pull(batch, file)?;
    if watch.fd != 0 {
        batch.call(libc::SYS_dup3, &[target.into(), watch.fd.into(), libc::O_CLOEXEC.into()], "dup3");
        batch.call(libc::SYS_close, &[target.into()], "close");
    }
    let epfd = pull(batch, epoll)?;
    let taken = register(batch, epfd.into(), &watch);
    batch.call(libc::SYS_close, &[epfd.into()], "close");
    batch.call(libc::SYS_close, &[watch.fd.into()], "close");
    Ok(taken)
}

fn watch(id: FileId, target: &EpollTarget) -> Result<Watch, Failure> {
    let too_many = || format!("{}: targets: events {} have 32 bits", file_entry(id), target.events);
    let events = u32::try_from(target.events.0).map_err(|_| Failure::new(Kind::BadImage, too_many()))?;
    Ok(Watch { fd: target.fd, events, data: target.data.0 })
}

/// A table that has an instance, and what it watches under the number it was added under: process, owner, and the instance's descriptor.
fn holder(image: &Image, id: FileId, target: &EpollTarget) -> Option<(Pid, Pid, u32)> {
    image.tables().find_map(|table| {
        let epfd = table.fds.iter().find(|fd| fd.file == id)?.fd;
        let named = table.fds.iter().any(|fd| fd.fd == target.fd && fd.file == target.file);
        named.then_some((table.process, table.owner, epfd))
    })
}

/// Whose table has an instance; any, of one that is under way in a message.
fn whoever_has(image: &Image, id: FileId) -> Result<Pid, Failure> {
    let mut tables = image.tables().filter(|table| !table.fds.is_empty());
    let found = image.tables().find(|table| table.fds.iter().any(|fd| fd.file == id)).or_else(|| tables.next());
    let nobody = || Failure::new(Kind::BadImage, format!("{}: no process has any descriptor", file_entry(id)));
    found.map(|table| table.owner).ok_or_else(nobody)
}

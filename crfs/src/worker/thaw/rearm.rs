//! The first thaw after a restore: what counts relative time is set again to what remained in the image.
//!
//! Timers are armed when a container is built, and then it may stay frozen for days. A timerfd set to a length of time gets
//! that again, and so does a wait for a length of time (`timers.rs` has the other timers). What is set to a point in time stays as it
//! is: the point may have passed.

use crate::captured::Captured;
use crate::failure::{Doing, Failure, Kind};
use crate::registry::Container;
use crate::resource::descriptor::TableOf;
use crate::resource::subject::{Process, Subjects, Thread};
use crfs_sys::timerfd_time::set_relative;
use crfs_sys::{pidfd, timerfd};
use image_format::files::{File, FileKind, Timerfd};
use image_format::process::Fd;
use image_format::thread::{Frame, Resume};
use image_format::{FileId, Timespec, layout, parse_lines, parse_object};
use nix::errno::Errno;
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::time::Duration;

/// `TFD_TIMER_ABSTIME`
const ABSOLUTE: u32 = 1;

/// What remained of each wait whose end the build has set, by thread, as the host numbers it.
///
/// # Errors
/// When the image cannot be read.
pub(super) fn waits(image: &Captured, subjects: &Subjects) -> Result<BTreeMap<i32, Timespec>, Failure> {
    let mut waits = BTreeMap::new();
    for process in &subjects.processes {
        for thread in &process.threads {
            let path = layout::thread_file(process.pid, thread.tid, "thread.frame");
            let text = match image.read(&path) {
                // A stub init is of no image.
                Err(failure) if failure.kind == Kind::NotFound => continue,
                other => other?,
            };
            let frame: Frame = parse_object(&text).doing(|| path.clone())?;
            if let Some(Resume::Remaining(remaining)) = frame.syscall.map(|call| call.resume) {
                waits.insert(thread.host, remaining);
            }
        }
    }
    Ok(waits)
}

/// The image that the container was restored from.
///
/// # Errors
/// When it cannot be read.
pub(super) fn image(container: &Container) -> Result<Captured, Failure> {
    Captured::open(&container.image_file())?.ok_or_else(|| {
        Failure::new(Kind::System, format!("{}: image is missing although it is frozen", container.name()))
    })
}

/// Sets the container's relative timerfds again. Call it while the container is frozen.
///
/// # Errors
/// When the image cannot be read, or a descriptor is not what the image says.
pub(super) fn rearm(image: &Captured, subjects: &Subjects) -> Result<(), Failure> {
    // Most containers have none.
    if !image.mentions(b"timerfd").doing(|| "looking for timerfds in the captured records")? {
        return Ok(());
    }
    let mut done = BTreeSet::new();
    for table in subjects.processes.iter().flat_map(tables) {
        let path = layout::table_file(table.process, table.owner);
        let text = match image.read(&path) {
            // A thread that has the descriptors of its process, or a stub init.
            Err(failure) if failure.kind == Kind::NotFound => continue,
            other => other?,
        };
        let fds: Vec<Fd> = parse_lines(&text).doing(|| path.clone())?;
        for fd in fds {
            if !done.insert(fd.file) {
                continue;
            }
            if let Some(timer) = relative_timer(image, fd.file)? {
                set(table.host, fd.fd, &timer).doing(|| format!("{path}: {}: setting the timerfd again", fd.fd))?;
            }
        }
    }
    Ok(())
}

/// The descriptor tables that a process and its threads may have.
fn tables(process: &Process) -> impl Iterator<Item = TableOf> {
    let own = TableOf::process(process.pid, process.alive().host);
    let others = process.threads.iter().filter(|thread| thread.tid != process.pid);
    let of_thread = |thread: &Thread| TableOf { process: process.pid, owner: thread.tid, host: thread.host };
    std::iter::once(own).chain(others.map(of_thread))
}

/// The record of a description that is an armed timerfd with a relative time.
fn relative_timer(image: &Captured, file: FileId) -> Result<Option<Timerfd>, Failure> {
    let path = layout::file_entry(file);
    let text = image.read(&path)?;
    // Few of the many are: the others need not be parsed.
    if memchr::memmem::find(&text, b"timerfd").is_none() {
        return Ok(None);
    }
    let file: File = parse_object(&text).doing(|| path.clone())?;
    Ok(match file.kind {
        FileKind::Timerfd(timer) if timer.settime_flags & ABSOLUTE == 0 && timer.remaining != Timespec::default() => {
            Some(timer)
        }
        _ => None,
    })
}

fn set(host: i32, fd: u32, timer: &Timerfd) -> nix::Result<()> {
    let process = pidfd::open_any(Pid::from_raw(host))?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    let duplicate = pidfd::getfd(process.as_fd(), fd)?;
    set_relative(duplicate.as_fd(), duration(timer.remaining)?, duration(timer.interval)?)?;
    if timer.ticks.0 == 0 { Ok(()) } else { timerfd::set_ticks(duplicate.as_fd(), timer.ticks.0) }
}

fn duration(time: Timespec) -> nix::Result<Duration> {
    let nanoseconds = u64::try_from(time.ns()).map_err(|_| Errno::EINVAL)?;
    Ok(Duration::from_nanos(nanoseconds))
}

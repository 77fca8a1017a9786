//! The first thaw after a restore: timerfds that count a length of time are set again to what remained in the image (`timers.rs` has
//! the other timers). What is set to a point in time stays as it is: the point may have passed.

use crate::failure::{Doing, Failure};
use crate::registry::CountedTimerfd;
use crfs_sys::timerfd_time::set_relative;
use crfs_sys::{pidfd, timerfd};
use image_format::Timespec;
use nix::errno::Errno;
use nix::unistd::Pid;
use std::os::fd::AsFd;
use std::time::Duration;

/// Sets it again. Call it while the container is frozen.
///
/// # Errors
/// When the descriptor is not what the image says.
pub(super) fn set(counted: &CountedTimerfd) -> Result<(), Failure> {
    let CountedTimerfd { thread, fd, timer } = counted;
    let set = || {
        let task = pidfd::open_any(Pid::from_raw(thread.thread))?;
        let timerfd = pidfd::getfd(task.as_fd(), i32::try_from(*fd).map_err(|_| Errno::EBADF)?)?;
        set_relative(timerfd.as_fd(), duration(timer.remaining)?, duration(timer.interval)?)?;
        if timer.ticks.0 == 0 { Ok(()) } else { timerfd::set_ticks(timerfd.as_fd(), timer.ticks.0) }
    };
    set().doing(|| format!("thread {}: descriptor {fd}: setting the timerfd again", thread.thread))
}

fn duration(time: Timespec) -> nix::Result<Duration> {
    let nanoseconds = u64::try_from(time.ns()).map_err(|_| Errno::EINVAL)?;
    Ok(Duration::from_nanos(nanoseconds))
}

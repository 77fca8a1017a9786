//! From the record to a timer that runs.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen::set_status;
use image_format::files::{File, Timerfd};
use image_format::layout::file_entry;
use image_format::manifest::Clocks;
use image_format::{FileId, Timespec};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, OwnedFd};

/// `TFD_TIMER_ABSTIME`
const ABSOLUTE: u32 = 1;
/// `TFD_TIMER_CANCEL_ON_SET`
const CANCEL_ON_SET: u32 = 2;

/// Makes a timerfd and sets it going. `clocks` are those of the image.
///
/// # Errors
/// [`Kind::BadImage`] for a clock, flag or time that cannot be; [`Kind::System`] where an alarm clock may not be used.
pub(in crate::resource) fn restore(
    id: FileId,
    file: &File,
    record: &Timerfd,
    clocks: &Clocks,
) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let bad = |reason: &str| Failure::new(Kind::BadImage, format!("{object}: {reason}"));
    let (clock, wall) = match record.clock {
        0 => (ClockId::CLOCK_REALTIME, true),
        1 => (ClockId::CLOCK_MONOTONIC, false),
        7 => (ClockId::CLOCK_BOOTTIME, false),
        8 => (ClockId::CLOCK_REALTIME_ALARM, true),
        9 => (ClockId::CLOCK_BOOTTIME_ALARM, false),
        _ => return Err(bad("clock: no such clock")),
    };
    if record.settime_flags & !(ABSOLUTE | CANCEL_ON_SET) != 0 {
        return Err(bad("settime_flags: no such flag"));
    }
    if record.remaining.sec < 0 || record.interval.sec < 0 {
        return Err(bad("remaining, interval: a length of time is not negative"));
    }
    let timer = TimerFd::new(clock, TimerFlags::TFD_CLOEXEC).doing(|| format!("{object}: creating a timerfd"))?;
    let armed = record.remaining != Timespec::default();
    let absolute = record.settime_flags & ABSOLUTE != 0 && armed;
    let value = if !absolute {
        record.remaining.ns()
    } else if wall {
        clocks.realtime.ns() + record.remaining.ns()
    } else {
        // The clock of the caller, who is in the container's time namespace: the kernel reads the time that is set there too.
        let now = crfs_sys::time::clock_ns(i32::try_from(record.clock).unwrap_or_default());
        i128::from(now.doing(|| format!("{object}: reading its clock"))?) + record.remaining.ns()
    };
    let flags = i32::try_from(record.settime_flags).unwrap_or_default();
    let value = timespec(value).ok_or_else(|| bad("remaining: out of range"))?;
    let interval = timespec(record.interval.ns()).ok_or_else(|| bad("interval: out of range"))?;
    let expiration = Expiration::IntervalDelayed(value, interval);
    timer
        .set(expiration, TimerSetTimeFlags::from_bits_retain(flags))
        .doing(|| format!("{object}: setting the timer"))?;
    if record.ticks.0 != 0 {
        crfs_sys::timerfd::set_ticks(timer.as_fd(), record.ticks.0).doing(|| {
            format!("{object}: setting its expirations (this needs a kernel with CONFIG_CHECKPOINT_RESTORE)")
        })?;
    }
    set_status(timer.as_fd(), file.flags).doing(|| format!("{object}: setting its flags"))?;
    Ok(timer.into())
}

fn timespec(ns: i128) -> Option<TimeSpec> {
    let sec = i64::try_from(ns.div_euclid(1_000_000_000)).ok()?;
    let nsec = i64::try_from(ns.rem_euclid(1_000_000_000)).ok()?;
    Some(TimeSpec::new(sec, nsec))
}

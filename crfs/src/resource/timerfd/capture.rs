//! From fdinfo to the record.

use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use image_format::files::Timerfd;
use image_format::{Hex, Timespec};
use std::os::fd::AsFd;

/// Captures a timerfd.
pub(in crate::resource) fn capture(seen: &Seen) -> Result<Timerfd, Refusal> {
    let record = read(seen)?;
    if !expired(&record) {
        return Ok(record);
    }
    let again = seen.holder.duplicate().and_then(|timer| crfs_sys::timerfd::catch_up(timer.as_fd()));
    let fresh = again.ok().and_then(|()| Seen::look(seen.holder).ok().flatten());
    let mut record = fresh.as_ref().map_or(Ok(record), read)?;
    if expired(&record) {
        // So short an interval that it has expired again: due at once.
        record.remaining = Timespec { sec: 0, nsec: 1 };
    }
    Ok(record)
}

/// Turns what remained when it was read into what remained `elapsed_ns` earlier.
pub(in crate::resource) fn earlier(record: &mut Timerfd, elapsed_ns: i64) {
    // A timer that is off has nothing that remains.
    if record.remaining != Timespec::default() {
        record.remaining = Timespec::from_ns(record.remaining.ns() + i128::from(elapsed_ns.max(0)));
    }
}

/// Periodic, expired, and waiting for a read to be started again. A timer that is merely off has no expirations.
fn expired(record: &Timerfd) -> bool {
    let zero = Timespec::default();
    record.remaining == zero && record.interval != zero && record.ticks.0 != 0
}

fn read(seen: &Seen) -> Result<Timerfd, Refusal> {
    let unknown = |line| Refusal::unknown_fdinfo("a timerfd", line);
    let info = &seen.info;
    let number = |name| info.decimal(name).ok_or_else(|| unknown(name));
    let clock = u32::try_from(number("clockid")?).map_err(|_| unknown("clockid"))?;
    let flags = info.value("settime flags").and_then(|text| u32::from_str_radix(text, 8).ok());
    let time = |name| info.value(name).and_then(parse_time).ok_or_else(|| unknown(name));
    Ok(Timerfd {
        clock,
        settime_flags: flags.ok_or_else(|| unknown("settime flags"))?,
        remaining: time("it_value")?,
        interval: time("it_interval")?,
        ticks: Hex(number("ticks")?),
    })
}

/// `(SECONDS, NANOSECONDS)`
fn parse_time(text: &str) -> Option<Timespec> {
    let (sec, nsec) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(", ")?;
    let nsec = nsec.parse().ok().filter(|&nsec| nsec < 1_000_000_000)?;
    Some(Timespec { sec: sec.parse().ok()?, nsec })
}

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
    let again = seen.duplicate().and_then(|timer| crfs_sys::timerfd::catch_up(timer.as_fd()));
    let fresh = again.ok().and_then(|()| seen.again().ok().flatten());
    let mut record = fresh.as_ref().map_or(Ok(record), read)?;
    if expired(&record) {
        // So short an interval that it has expired again: due at once.
        record.remaining = Timespec { sec: 0, nsec: 1 };
    }
    Ok(record)
}

/// Turns what remained when it was read into what remained `elapsed_ns` earlier. A periodic timer may have fired in between: it had
/// not yet done so then.
pub(in crate::resource) fn earlier(record: &mut Timerfd, elapsed_ns: i64) {
    // A timer that is off has nothing that remains.
    if record.remaining == Timespec::default() {
        return;
    }
    let (elapsed, interval) = (i128::from(elapsed_ns.max(0)), record.interval.ns());
    let mut remaining = record.remaining.ns() + elapsed;
    if interval > 0 && record.ticks.0 > 0 {
        // The first of its expirations may have been further away than an interval.
        let since = u64::try_from((remaining - 1).max(0) / interval).unwrap_or(u64::MAX).min(record.ticks.0);
        record.ticks.0 -= since;
        remaining -= i128::from(since) * interval;
    }
    record.remaining = Timespec::from_ns(remaining);
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

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i128 = 1_000_000;

    fn earlier_by(ms: i64, remaining: i128, interval: i128, ticks: u64) -> (i128, u64) {
        let time = |ms: i128| Timespec::from_ns(ms * MS);
        let (remaining, interval) = (time(remaining), time(interval));
        let mut record = Timerfd { clock: 1, settime_flags: 0, remaining, interval, ticks: Hex(ticks) };
        earlier(&mut record, ms * 1_000_000);
        (record.remaining.ns() / MS, record.ticks.0)
    }

    #[test]
    fn expirations_after_the_moment_are_taken_back() {
        assert_eq!(earlier_by(30, 0, 0, 1), (0, 1), "off, or a single one that has fired");
        assert_eq!(earlier_by(30, 50, 0, 0), (80, 0));
        assert_eq!(earlier_by(3, 5, 10, 4), (8, 4));
        assert_eq!(earlier_by(33, 5, 10, 4), (8, 1));
        assert_eq!(earlier_by(5, 5, 10, 4), (10, 4), "it fired at the moment itself");
        assert_eq!(earlier_by(30, 5, 10, 1), (25, 0), "first due later than an interval");
        assert_eq!(earlier_by(30, 3600, 10, 0), (3630, 0));
    }
}

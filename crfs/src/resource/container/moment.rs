//! The clocks at the moment of the freeze.

use super::super::proc::Proc;
use super::inside::{TIME, inside};
use crate::failure::{Doing, Failure, Kind};
use crfs_sys::time::clock_ns;
use image_format::Timespec;
use image_format::manifest::Clocks;

/// The host's clocks when the last task had stopped, in nanoseconds. What was to happen later is recorded as what
/// remained from here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// CLOCK_REALTIME.
    pub realtime_ns: i64,
    /// CLOCK_MONOTONIC of the host.
    pub monotonic_ns: i64,
    /// CLOCK_BOOTTIME of the host.
    pub boottime_ns: i64,
    /// CLOCK_TAI.
    pub tai_ns: i64,
}

impl Moment {
    /// Now.
    ///
    /// # Errors
    /// When a clock cannot be read.
    pub fn now() -> Result<Self, Failure> {
        let read = |clock| clock_ns(clock).doing(|| "clocks: reading");
        Ok(Moment {
            realtime_ns: read(libc::CLOCK_REALTIME)?,
            monotonic_ns: read(libc::CLOCK_MONOTONIC)?,
            boottime_ns: read(libc::CLOCK_BOOTTIME)?,
            tai_ns: read(libc::CLOCK_TAI)?,
        })
    }

    /// What the clock of that number showed on the host; None for clocks of processor time and other rare ones.
    #[must_use]
    pub fn of_clock(&self, clock: i32) -> Option<i64> {
        match clock {
            libc::CLOCK_REALTIME => Some(self.realtime_ns),
            libc::CLOCK_MONOTONIC => Some(self.monotonic_ns),
            libc::CLOCK_BOOTTIME => Some(self.boottime_ns),
            libc::CLOCK_TAI => Some(self.tai_ns),
            _ => None,
        }
    }

    /// As the process reads them in its time namespace.
    ///
    /// The caller must have one thread.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn inside(&self, host: i32, proc: &mut Proc) -> Result<Clocks, Failure> {
        let offsets = Offsets::of(host, proc)?;
        let at = |ns: i64, offset: i128| Timespec::from_ns(i128::from(ns) + offset);
        Ok(Clocks {
            realtime: at(self.realtime_ns, 0),
            monotonic: at(self.monotonic_ns, offsets.monotonic),
            boottime: at(self.boottime_ns, offsets.boottime),
        })
    }
}

/// What a time namespace adds to the host's clocks, in nanoseconds: time_namespaces(7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// To `CLOCK_MONOTONIC`.
    pub monotonic: i128,
    /// To `CLOCK_BOOTTIME`.
    pub boottime: i128,
}

impl Offsets {
    /// Those of the namespace that a process (host pid) is in.
    ///
    /// The caller must have one thread.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(host: i32, proc: &mut Proc) -> Result<Self, Failure> {
        if proc.link(format_args!("{host}/ns/time"))? == proc.link(format_args!("{host}/ns/time_for_children"))? {
            return Self::for_children(host, proc);
        }
        // What can be read there is that for its children.
        inside(host, &[TIME], || Self::for_children(nix::unistd::getpid().as_raw(), proc))
    }

    /// Those of the namespace that the children of a process (host pid) are born into.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn for_children(host: i32, proc: &mut Proc) -> Result<Self, Failure> {
        Self::parse(proc.text(format_args!("{host}/timens_offsets"))?).ok_or_else(|| {
            Failure::new(Kind::Unsupported, format!("manifest: /proc/{host}/timens_offsets is malformed"))
        })
    }

    /// As /proc/PID/timens_offsets takes them.
    #[must_use]
    pub fn text(&self) -> String {
        let line = |clock: &str, ns: i128| {
            format!("{clock} {} {}\n", ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000))
        };
        line("monotonic", self.monotonic) + &line("boottime", self.boottime)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut offsets = Offsets::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let clock = words.next()?;
            let seconds: i128 = words.next()?.parse().ok()?;
            let nanoseconds: i128 = words.next()?.parse().ok()?;
            match clock {
                "monotonic" => offsets.monotonic = seconds * 1_000_000_000 + nanoseconds,
                "boottime" => offsets.boottime = seconds * 1_000_000_000 + nanoseconds,
                _ => return None,
            }
        }
        Some(offsets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_may_be_negative() {
        let offsets = Offsets::parse("monotonic          -2   500000000\nboottime             7         3\n");
        assert_eq!(offsets, Some(Offsets { monotonic: -1_500_000_000, boottime: 7_000_000_003 }));
        assert_eq!(Offsets::parse("tai 1 2\n"), None);
    }
}

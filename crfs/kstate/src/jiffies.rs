//! The clock of timers that count jiffies.
//!
//! A jiffy is a tick of the kernel's; how many there have been is in /proc/timer_list, and how long one takes is the resolution of
//! CLOCK_MONOTONIC_COARSE (`LOW_RES_NSEC`, include/linux/hrtimer_defs.h and kernel/time/posix-timers.c, v6.18).

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use crfs_sys::time::{clock_ns, clock_resolution_ns};

/// How jiffies stand to CLOCK_MONOTONIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jiffies {
    count: u64,
    /// CLOCK_MONOTONIC at that count, up to a tick later.
    ns: u64,
    tick_ns: u64,
}

impl Jiffies {
    /// As they stand now.
    ///
    /// # Errors
    /// When the file cannot be read, or tells none.
    pub fn now() -> io::Result<Self> {
        let file = BufReader::new(File::open("/proc/timer_list")?);
        let tick_ns = clock_resolution_ns(libc::CLOCK_MONOTONIC_COARSE)?;
        for line in file.lines() {
            if let Some(count) = line?.strip_prefix("jiffies: ") {
                let count = count.trim().parse().map_err(io::Error::other)?;
                return Ok(Self { count, ns: clock_ns(libc::CLOCK_MONOTONIC)?.cast_unsigned(), tick_ns });
            }
        }
        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// When the count is reached, in nanoseconds of CLOCK_MONOTONIC. None for a time that no timer which still runs has.
    pub(crate) fn to_ns(self, count: u64) -> Option<u64> {
        let ahead = (i128::from(count) - i128::from(self.count)) * i128::from(self.tick_ns);
        let at = u64::try_from(i128::from(self.ns) + ahead).ok();
        at.filter(|&ns| ahead > -LATE_NS && ns < 1 << 62)
    }
}

/// How late a timer may be, nanoseconds.
const LATE_NS: i128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_a_time() {
        let jiffies = Jiffies { count: 1000, ns: 9_000_000_000, tick_ns: 4_000_000 };
        assert_eq!(jiffies.to_ns(1002), Some(9_008_000_000));
        assert_eq!(jiffies.to_ns(998), Some(8_992_000_000));
        assert_eq!([700, 10, u64::MAX].map(|count| jiffies.to_ns(count)), [None; 3]);
    }
}

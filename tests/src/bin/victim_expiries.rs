//! Hundreds of timers that expire at every moment, so also between any two looks at a frozen process: each expiry tells once, in time.
//!
//! Threads that rest make a freeze take long enough for some to expire in it.

use anyhow::{Result, ensure};
use crfs_sys::posix_timer::{self as timer, Notify};
use crfs_sys::signal;
use crfs_sys::sigqueue;
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const TIMERS: usize = 300;
const THREADS: usize = 40;
const TOLD_BY: i32 = 40;
const PERIOD: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);

struct Timer {
    id: i32,
    due: Duration,
    told: bool,
}

impl Timer {
    fn arm(&mut self, after: Duration) -> Result<()> {
        self.due = monotonic()? + after;
        Ok(timer::set(self.id, false, after, Duration::ZERO)?)
    }
}

fn monotonic() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

/// Until every timer has told: one that is told again before its time was told twice, one that is never told was lost.
fn round(timers: &mut [Timer]) -> Result<()> {
    timers.iter_mut().for_each(|timer| timer.told = false);
    let end = Instant::now() + PATIENCE;
    while let Some(missing) = timers.iter().position(|timer| !timer.told) {
        ensure!(Instant::now() < end, "timer {missing} did not tell within {PATIENCE:?}");
        let taken = match sigqueue::take(signal::bit(TOLD_BY), Some(Duration::from_millis(100))) {
            Err(Errno::EAGAIN) => continue,
            taken => taken?,
        };
        let timer = &mut timers[taken.value];
        ensure!(taken.code == libc::SI_TIMER && taken.pid == timer.id, "took {taken:x?} for timer {}", timer.id);
        let now = monotonic()?;
        ensure!(now >= timer.due, "timer {} told {:?} before its time", timer.id, timer.due - now);
        timer.told = true;
        timer.arm(PERIOD)?;
    }
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    // Before there are threads: they inherit it.
    signal::set_mask(signal::bit(TOLD_BY))?;
    for _ in 0..THREADS {
        std::thread::spawn(|| {
            loop {
                std::thread::park();
            }
        });
    }
    let mut timers = Vec::new();
    for number in 0..TIMERS {
        let id = timer::create(libc::CLOCK_MONOTONIC, Notify::Process(TOLD_BY), number)?;
        let mut timer = Timer { id, due: Duration::ZERO, told: false };
        // One every millisecond, from then on.
        timer.arm(Duration::from_millis(u64::try_from(number)? + 1))?;
        timers.push(timer);
    }
    loop {
        round(&mut timers)?;
        if !stage.end_round()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

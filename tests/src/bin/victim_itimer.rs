//! All three interval timers: one that keeps firing, two that are far from firing.

use anyhow::{Result, ensure};
use crfs_sys::handler;
use crfs_sys::itimer::{self, Which};
use crfs_tests::victim::{self, Stage};
use std::process::ExitCode;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(20);
const FAR: Duration = Duration::from_secs(1000);

fn run(stage: &mut Stage) -> Result<()> {
    handler::install(libc::SIGALRM, libc::SA_RESTART, 0)?;
    itimer::set(Which::Real, TICK, TICK)?;
    itimer::set(Which::Virtual, FAR, FAR * 2)?;
    itimer::set(Which::Prof, FAR, Duration::ZERO)?;
    let mut left = FAR + Duration::from_secs(1);
    loop {
        let before = handler::delivered(libc::SIGALRM);
        victim::wait_until("SIGALRM from the interval timer", || handler::delivered(libc::SIGALRM) > before + 1)?;
        let (remaining, interval) = itimer::get(Which::Real)?;
        ensure!(interval == TICK && remaining <= TICK + TICK, "ITIMER_REAL is {remaining:?}, {interval:?}");
        let (remaining, interval) = itimer::get(Which::Virtual)?;
        ensure!(interval == FAR * 2, "the interval of ITIMER_VIRTUAL is {interval:?}");
        // The kernel rounds up to its tick when it answers.
        ensure!(remaining <= left && remaining > FAR / 2, "ITIMER_VIRTUAL went from {left:?} to {remaining:?}");
        left = remaining + Duration::from_millis(10);
        let (remaining, interval) = itimer::get(Which::Prof)?;
        ensure!(interval.is_zero(), "the interval of ITIMER_PROF is {interval:?}");
        ensure!(remaining > FAR / 2 && remaining < FAR * 2, "ITIMER_PROF is {remaining:?}");
        if !stage.end_round()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Timer descriptors: one that keeps firing, one far away, one disarmed, one with expirations that were not read.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::process::ExitCode;

fn timer(clock: ClockId, expiration: Option<Expiration>) -> Result<TimerFd> {
    let timer = TimerFd::new(clock, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
    if let Some(expiration) = expiration {
        timer.set(expiration, TimerSetTimeFlags::empty())?;
    }
    Ok(timer)
}

fn ticks(timer: &TimerFd) -> nix::Result<u64> {
    let mut count = [0; 8];
    nix::unistd::read(timer, &mut count).map(|_| u64::from_ne_bytes(count))
}

fn run(stage: &mut Stage) -> Result<()> {
    let tick = TimeSpec::milliseconds(10);
    let periodic = timer(ClockId::CLOCK_MONOTONIC, Some(Expiration::Interval(tick)))?;
    let far = TimeSpec::seconds(3600);
    let once = timer(ClockId::CLOCK_BOOTTIME, Some(Expiration::IntervalDelayed(far, TimeSpec::seconds(7))))?;
    let disarmed = timer(ClockId::CLOCK_REALTIME, None)?;
    let unread = timer(ClockId::CLOCK_MONOTONIC, Some(Expiration::OneShot(TimeSpec::milliseconds(1))))?;
    let mut fired = 0;
    loop {
        victim::wait_until("the periodic timer", || ticks(&periodic).inspect(|count| fired += count).is_ok())?;
        let armed = periodic.get()?;
        ensure!(is_periodic(armed, tick), "the timer of {tick:?} is {armed:?}");
        match once.get()? {
            Some(Expiration::IntervalDelayed(left, interval)) => ensure!(
                interval == TimeSpec::seconds(7) && left <= far && left > TimeSpec::seconds(1800),
                "the far timer has {left:?} left, then every {interval:?}"
            ),
            other => anyhow::bail!("the far timer is {other:?}"),
        }
        ensure!(disarmed.get()?.is_none(), "the disarmed timer is armed");
        if !stage.end_round()? {
            break;
        }
    }
    ensure!(ticks(&unread) == Ok(1), "the expiration that was not read is lost");
    ensure!(ticks(&unread) == Err(Errno::EAGAIN), "the expiration came twice");
    ensure!(fired >= stage.round(), "the periodic timer fired {fired} times in {} rounds", stage.round());
    Ok(())
}

fn is_periodic(armed: Option<Expiration>, tick: TimeSpec) -> bool {
    match armed {
        Some(Expiration::Interval(interval)) => interval == tick,
        Some(Expiration::IntervalDelayed(left, interval)) => interval == tick && left <= tick,
        _ => false,
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

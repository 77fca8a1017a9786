//! POSIX timers of every clock and way to notify: some that fire, some far away, some whose signal waits to be taken.

use anyhow::{Context, Result, ensure};
use crfs_sys::posix_timer::{self as timer, Notify};
use crfs_sys::sigqueue::{self, Taken};
use crfs_sys::{handler, signal};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, gettid};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Blocked, and taken off the queue.
const OF_THREAD: i32 = 40;
const ONCE: i32 = 41;
const OFTEN: i32 = 42;
const MISSED: i32 = 43;
const VALUE: usize = 0xdead_beef_0bad_cafe;

const TICK: Duration = Duration::from_millis(20);
const FAR: Duration = Duration::from_secs(1000);
const NEVER: Duration = Duration::ZERO;

/// The ids as the kernel gave them; those of 1 and 3 were deleted.
struct Timers {
    ticking: i32,
    silent: i32,
    of_process: i32,
    of_thread: i32,
    dated: i32,
    once: i32,
    often: i32,
    missed: i32,
    disarmed: i32,
    other_thread: i32,
}

fn monotonic() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

fn date() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_REALTIME)?.into())
}

fn create(listener: Pid) -> Result<Timers> {
    let ticking = timer::create(libc::CLOCK_MONOTONIC, Notify::Process(libc::SIGUSR1), 1)?;
    let second = timer::create(libc::CLOCK_MONOTONIC, Notify::Process(libc::SIGUSR2), 0)?;
    let silent = timer::create(libc::CLOCK_BOOTTIME, Notify::Nobody, 0)?;
    let fourth = timer::create(libc::CLOCK_MONOTONIC, Notify::Process(libc::SIGUSR2), 0)?;
    timer::delete(second)?;
    timer::delete(fourth)?;
    let timers = Timers {
        ticking,
        silent,
        of_process: timer::create(libc::CLOCK_PROCESS_CPUTIME_ID, Notify::Process(libc::SIGUSR2), 0)?,
        of_thread: timer::create(libc::CLOCK_THREAD_CPUTIME_ID, Notify::Process(libc::SIGUSR2), 0)?,
        dated: timer::create(libc::CLOCK_REALTIME, Notify::Process(libc::SIGUSR2), 0)?,
        once: timer::create(libc::CLOCK_REALTIME, Notify::Process(ONCE), VALUE)?,
        often: timer::create(libc::CLOCK_MONOTONIC, Notify::Thread(OFTEN, gettid()), VALUE)?,
        missed: timer::create(libc::CLOCK_MONOTONIC, Notify::Process(MISSED), VALUE)?,
        disarmed: timer::create(libc::CLOCK_MONOTONIC, Notify::Process(libc::SIGUSR2), 0)?,
        other_thread: timer::create(libc::CLOCK_MONOTONIC, Notify::Thread(OF_THREAD, listener), VALUE)?,
    };
    timer::set(timers.ticking, false, TICK, TICK)?;
    timer::set(timers.silent, false, FAR, Duration::from_secs(7))?;
    timer::set(timers.of_process, false, FAR, Duration::from_secs(3))?;
    timer::set(timers.of_thread, false, FAR, NEVER)?;
    timer::set(timers.dated, true, date()? + FAR, NEVER)?;
    timer::set(timers.once, false, Duration::from_millis(1), NEVER)?;
    timer::set(timers.often, false, Duration::from_millis(1), Duration::from_millis(1))?;
    timer::set(timers.other_thread, false, TICK, TICK)?;
    // Two periods too late: both are an overrun of the first expiration.
    timer::set(timers.missed, true, monotonic()?.saturating_sub(FAR * 5 / 2), FAR)?;
    let taken =
        sigqueue::take(signal::bit(MISSED), Some(Duration::from_secs(10))).context("an expiration in the past")?;
    expect(taken, MISSED, timers.missed, VALUE)?;
    Ok(timers)
}

/// Where siginfo has the sender of other signals it has the id of a timer.
fn expect(taken: Taken, signal: i32, id: i32, value: usize) -> Result<()> {
    let right = taken == Taken { signal, code: libc::SI_TIMER, pid: id, value };
    ensure!(right, "took {taken:x?} and not signal {signal} of timer {id}");
    Ok(())
}

/// Whether a far timer is still as far as it should be, and not started again.
fn far(name: &str, id: i32, interval: Duration, least: Duration) -> Result<()> {
    let (left, period) = timer::get(id).with_context(|| format!("the {name} timer"))?;
    ensure!(period == interval, "the interval of the {name} timer is {period:?}");
    // The kernel rounds processor time up to its tick when it answers.
    let most = FAR + Duration::from_millis(20);
    ensure!(left <= most && left >= least, "the {name} timer has {left:?} left, not {least:?} to {most:?}");
    Ok(())
}

fn check(timers: &Timers, end: Duration, date_end: Duration) -> Result<()> {
    let left = end.saturating_sub(monotonic()?).saturating_sub(Duration::from_secs(1));
    far("silent", timers.silent, Duration::from_secs(7), left)?;
    far("process's", timers.of_process, Duration::from_secs(3), FAR / 2)?;
    far("thread's", timers.of_thread, NEVER, FAR / 2)?;
    far("missed", timers.missed, FAR, left.saturating_sub(FAR / 2))?;
    let (left, _) = timer::get(timers.dated)?;
    let expected = date_end.saturating_sub(date()?);
    let apart = left.abs_diff(expected);
    ensure!(apart < Duration::from_secs(1), "the dated timer has {left:?} left, not {expected:?}");
    ensure!(timer::get(timers.disarmed)? == (NEVER, NEVER), "the disarmed timer runs");
    let overrun = timer::overrun(timers.missed)?;
    ensure!(overrun == 2, "timer_getoverrun tells {overrun} and not 2");
    Ok(())
}

/// Takes the signals of the timer that is its own.
fn listen(id: &AtomicU64, heard: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::SeqCst) {
        match sigqueue::take(signal::bit(OF_THREAD), Some(Duration::from_millis(100))) {
            Ok(taken) => {
                expect(taken, OF_THREAD, i32::try_from(id.load(Ordering::SeqCst))?, VALUE)?;
                heard.fetch_add(1, Ordering::SeqCst);
            }
            Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(errno).context("taking the signals of a thread"),
        }
    }
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    signal::set_mask([OF_THREAD, ONCE, OFTEN, MISSED].map(signal::bit).iter().sum())?;
    handler::install(libc::SIGUSR1, libc::SA_RESTART, 0)?;
    let heard = Arc::new((AtomicU64::new(u64::MAX), AtomicU64::new(0), AtomicBool::new(false)));
    let (sender, receiver) = std::sync::mpsc::channel();
    let listener = {
        let heard = Arc::clone(&heard);
        std::thread::spawn(move || {
            // A handler that runs ends the wait for another signal.
            signal::set_mask(signal::mask()? | signal::bit(libc::SIGUSR1))?;
            sender.send(gettid())?;
            listen(&heard.0, &heard.1, &heard.2)
        })
    };
    let (end, date_end) = (monotonic()? + FAR, date()? + FAR);
    // Known to the listener before the first signal can come.
    heard.0.store(11, Ordering::SeqCst);
    let timers = create(receiver.recv()?)?;
    ensure!(timers.other_thread == 11, "the twelfth timer has the id {}", timers.other_thread);
    loop {
        let before = (handler::delivered(libc::SIGUSR1), heard.1.load(Ordering::SeqCst));
        let ticks =
            || handler::delivered(libc::SIGUSR1) > before.0 + 1 && heard.1.load(Ordering::SeqCst) > before.1 + 1;
        victim::wait_until("signals of the two timers that tick", || listener.is_finished() || ticks())?;
        check(&timers, end, date_end)?;
        if listener.is_finished() || !stage.end_round()? {
            break;
        }
    }
    let now = Some(Duration::ZERO);
    expect(sigqueue::take(signal::bit(ONCE), now).context("a timer that fired once")?, ONCE, timers.once, VALUE)?;
    ensure!(sigqueue::take(signal::bit(ONCE), now) == Err(Errno::EAGAIN), "a single expiration told twice");
    expect(sigqueue::take(signal::bit(OFTEN), now).context("a periodic timer")?, OFTEN, timers.often, VALUE)?;
    let missed = timer::overrun(timers.often)?;
    ensure!(missed > 10, "a timer of a millisecond whose signal was not taken for long missed {missed}");
    let next = timer::create(libc::CLOCK_MONOTONIC, Notify::Nobody, 0)?;
    ensure!(next == 12, "the next timer has the id {next} and not 12");
    ensure!(handler::delivered(libc::SIGUSR2) == 0, "a far timer has fired");
    heard.2.store(true, Ordering::SeqCst);
    listener.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the listener panicked")))
}

fn main() -> ExitCode {
    victim::main(run)
}

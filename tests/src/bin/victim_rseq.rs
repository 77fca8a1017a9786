//! Code that must not go on where it stood: a restartable sequence in progress, which ends by being aborted, and the vDSO, which reads clocks
//! that go on elsewhere.

use anyhow::{Result, ensure};
use crfs_sys::{handler, rseq, sigqueue};
use crfs_tests::victim::{self, Stage};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, gettid};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

/// More than any test takes, and less than the clocks of two machines are apart.
const JUMP: Duration = Duration::from_secs(600);

#[derive(Default)]
struct Shared {
    tid: AtomicI32,
    aborted: AtomicU64,
    read: AtomicU64,
    stop: AtomicBool,
}

fn sequences(shared: &Shared) -> Result<()> {
    shared.tid.store(gettid().as_raw(), Ordering::SeqCst);
    while !shared.stop.load(Ordering::SeqCst) {
        rseq::until_aborted();
        shared.aborted.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// In the vDSO nearly all the time.
fn clocks(shared: &Shared) -> Result<()> {
    let now = || Ok::<Duration, anyhow::Error>(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into());
    let mut last = now()?;
    while !shared.stop.load(Ordering::Relaxed) {
        let next = now()?;
        ensure!(next >= last && next - last < JUMP, "CLOCK_MONOTONIC went from {last:?} to {next:?}");
        last = next;
        shared.read.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    ensure!(rseq::is_registered(), "the C library has not registered rseq");
    handler::install(libc::SIGUSR1, libc::SA_RESTART, 0)?;
    let shared = Arc::new(Shared::default());
    let start = |body: fn(&Shared) -> Result<()>| {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || body(&shared))
    };
    let threads = [start(sequences), start(clocks)];
    victim::wait_until("the thread to begin", || shared.tid.load(Ordering::SeqCst) != 0)?;
    // A handler in the middle aborts the sequence.
    let interrupt = || sigqueue::to_thread(Pid::from_raw(shared.tid.load(Ordering::SeqCst)), libc::SIGUSR1);
    loop {
        let before = (shared.aborted.load(Ordering::SeqCst), shared.read.load(Ordering::Relaxed));
        interrupt()?;
        let moved =
            || shared.aborted.load(Ordering::SeqCst) > before.0 && shared.read.load(Ordering::Relaxed) > before.1;
        victim::wait_until("an aborted sequence and a clock", || threads[1].is_finished() || moved())?;
        if threads[1].is_finished() || !stage.end_round_and_rest()? {
            break;
        }
    }
    shared.stop.store(true, Ordering::SeqCst);
    victim::wait_until("the sequence to end", || interrupt().is_err() || threads[0].is_finished())?;
    for thread in threads {
        thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked")))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Many threads that count, each with its own id, name, mask and thread-local storage.

use anyhow::{Context, Result, ensure};
use crfs_sys::signal;
use crfs_tests::victim::{self, Stage};
use std::cell::Cell;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

#[derive(Default)]
struct Shared {
    counts: Vec<AtomicU64>,
    stop: AtomicBool,
}

fn work(shared: &Shared, index: usize) -> Result<()> {
    let tid = nix::unistd::gettid();
    let blocked = 1 << (index % 5 + 33);
    signal::set_mask(blocked)?;
    let name = std::fs::read_to_string(format!("/proc/self/task/{tid}/comm"))?;
    while !shared.stop.load(Ordering::Relaxed) {
        COUNT.set(COUNT.get() + 1);
        let seen = shared.counts[index].fetch_add(1, Ordering::Relaxed) + 1;
        ensure!(COUNT.get() == seen, "thread {index} has the local storage of another");
        ensure!(nix::unistd::gettid() == tid, "thread {index} has another id");
        ensure!(signal::mask()? == blocked, "thread {index} has another mask");
        std::thread::sleep(Duration::from_millis(30));
    }
    ensure!(std::fs::read_to_string(format!("/proc/self/task/{tid}/comm"))? == name, "thread {index} has another name");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let count: usize = stage.arguments().first().map_or(Ok(200), |n| n.parse())?;
    let shared = Arc::new(Shared { counts: (0..count).map(|_| AtomicU64::new(0)).collect(), ..Shared::default() });
    let mut threads = Vec::new();
    for index in 0..count {
        let shared = Arc::clone(&shared);
        let builder = std::thread::Builder::new().name(format!("worker-{index}")).stack_size(64 << 10);
        threads.push(builder.spawn(move || work(&shared, index))?);
    }
    loop {
        let before: Vec<u64> = shared.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let all_counted = || shared.counts.iter().zip(&before).all(|(now, then)| now.load(Ordering::Relaxed) > *then);
        let ended = |thread: &std::thread::JoinHandle<_>| thread.is_finished();
        victim::wait_until("every thread to count on", || all_counted() || threads.iter().any(ended))?;
        if threads.iter().any(ended) || !stage.end_round()? {
            break;
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().ok().context("a thread panicked")??;
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

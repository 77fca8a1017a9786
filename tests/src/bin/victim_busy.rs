//! Whatever a freeze may meet a program at: threads that read files which the kernel makes up, without rest, and threads whose waits run out
//! at all times.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage};
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Threads that wait.
const WAITING: u64 = 40;
/// Files to read, and what stands in each.
const FILES: [(&str, &str); 7] = [
    ("/proc/self/maps", "[stack]"),
    ("/proc/self/smaps_rollup", "[rollup]"),
    ("/proc/thread-self/comm", "busy"),
    ("/proc/net/dev", "lo:"),
    ("/proc/self/cgroup", "0::"),
    ("/proc/sys/kernel/ostype", "Linux"),
    ("/sys/kernel/mm/transparent_hugepage/enabled", "madvise"),
];

fn read_all(stop: &AtomicBool, reads: &AtomicU64) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        for (name, part) in FILES {
            let text = fs::read_to_string(name).with_context(|| format!("reading {name}"))?;
            ensure!(text.contains(part), "{name} says {text:?}");
        }
        reads.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Waits for what does not come, for 1 to 60 ms.
fn wait(stop: &AtomicBool, thread: u64) {
    let mut milliseconds = thread;
    while !stop.load(Ordering::Relaxed) {
        milliseconds = (milliseconds * 31 + 7) % 60;
        std::thread::park_timeout(Duration::from_millis(milliseconds + 1));
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..WAITING {
            let stop = &stop;
            scope.spawn(move || wait(stop, thread));
        }
        let readers = [(); 2].map(|()| scope.spawn(|| read_all(&stop, &reads)));
        let mut round = || -> Result<()> {
            loop {
                let before = reads.load(Ordering::Relaxed);
                let read = || reads.load(Ordering::Relaxed) != before || readers.iter().any(|it| it.is_finished());
                victim::wait_until("all files to be read", read)?;
                if readers.iter().any(|reader| reader.is_finished()) || !stage.end_round_and_rest()? {
                    return Ok(());
                }
            }
        };
        let rounds = round();
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
        }
        rounds
    })
}

fn main() -> ExitCode {
    victim::main(run)
}

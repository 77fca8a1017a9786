//! Threads with working directories and umasks of their own (unshare(2)), beside others that have the process's.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, getcwd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const OF_PROCESS: (&str, u32) = ("/etc", 0o77);
const OWN: [(&str, u32); 2] = [("/dev", 0o27), ("/usr", 0o1)];

fn check(who: &str, (directory, mask): (&str, u32)) -> Result<()> {
    let now = getcwd()?;
    ensure!(now.as_os_str() == directory, "{who} is in {} and not in {directory}", now.display());
    let mask = Mode::from_bits_truncate(mask);
    let was = umask(mask);
    ensure!(was == mask, "{who} has the umask {was:?} and not {mask:?}");
    Ok(())
}

/// A thread that checks itself until it is told to stop, and tells how often it did.
fn thread(own: Option<(&'static str, u32)>, checked: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    if let Some((directory, mask)) = own {
        unshare(CloneFlags::CLONE_FS)?;
        chdir(directory)?;
        umask(Mode::from_bits_truncate(mask));
    }
    while !stop.load(Ordering::Relaxed) {
        check("a thread", own.unwrap_or(OF_PROCESS))?;
        checked.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    chdir(OF_PROCESS.0)?;
    umask(Mode::from_bits_truncate(OF_PROCESS.1));
    let stop = Arc::new(AtomicBool::new(false));
    let threads = [None, Some(OWN[0]), Some(OWN[1])].map(|own| {
        let (stop, checked) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
        let counter = Arc::clone(&checked);
        (std::thread::spawn(move || thread(own, &counter, &stop)), checked)
    });
    loop {
        for (thread, checked) in &threads {
            let before = checked.load(Ordering::Relaxed);
            let goes_on = || thread.is_finished() || checked.load(Ordering::Relaxed) > before;
            victim::wait_until("a thread to check itself", goes_on)?;
        }
        check("the first thread", OF_PROCESS)?;
        if threads.iter().any(|(thread, _)| thread.is_finished()) || !stage.end_round()? {
            break;
        }
    }
    // Still shared by those that share it.
    stop.store(true, Ordering::Relaxed);
    for (thread, _) in threads {
        thread.join().ok().context("a thread panicked")??;
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

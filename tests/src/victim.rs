//! What every victim does: progress into a file, checks without end, a verdict.
//!
//! A victim is started as `victim_KIND PATH [ARGUMENT...]`. It sets its state up, then works in rounds, each of which checks the
//! state and writes the number of rounds so far to PATH. When PATH.check appears (or after VICTIM_ROUNDS rounds) it makes one round
//! more and its final check, and writes `ok`, or what is wrong, to PATH.result. A check that fails in between ends it at once.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::Region;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The rounds of a victim.
#[derive(Debug)]
pub struct Stage {
    path: PathBuf,
    arguments: Vec<String>,
    round: u64,
    last: Option<u64>,
}

impl Stage {
    /// The progress file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What followed the path on the command line.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }

    /// How many rounds were completed.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round
    }

    /// Completes a round. False: it was the last, the final check is due.
    ///
    /// # Errors
    /// When the progress cannot be written.
    pub fn end_round(&mut self) -> Result<bool> {
        self.round += 1;
        show(&self.path, self.round)?;
        if self.last == Some(self.round) {
            return Ok(false);
        }
        if suffixed(&self.path, "check").exists() {
            // Whoever asked wants to know how it is now, not how it was a moment ago.
            self.last = Some(self.round + 1);
        }
        Ok(true)
    }

    /// Completes a round and rests a little, so that most freezes meet the victim asleep.
    ///
    /// # Errors
    /// As [`Stage::end_round`].
    pub fn end_round_and_rest(&mut self) -> Result<bool> {
        let more = self.end_round()?;
        std::thread::sleep(Duration::from_millis(5));
        Ok(more)
    }
}

/// PATH.SUFFIX
#[must_use]
pub fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Writes a number over the one before: by one call and always as long, so that nobody sees a part of it. The file stays the same one,
/// and a checkpoint that meets it open can be restored although the program ran on.
fn show(path: &Path, round: u64) -> Result<()> {
    let file = fs::File::options().write(true).create(true).truncate(false).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{round:020}").as_bytes()));
    written.with_context(|| format!("writing {}", path.display()))
}

/// Replaces a file as a whole: whoever reads it sees the old or the new.
fn replace(path: &Path, text: &str) -> Result<()> {
    let new = suffixed(path, "new");
    fs::write(&new, text).with_context(|| format!("writing {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("renaming to {}", path.display()))
}

/// The main function of a victim: runs `body` and writes its verdict.
pub fn main(body: impl FnOnce(&mut Stage) -> Result<()>) -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: victim PATH [ARGUMENT...]");
        return ExitCode::from(2);
    };
    let last = std::env::var("VICTIM_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let mut stage = Stage { path, arguments: arguments.collect(), round: 0, last };
    let (verdict, code) = match body(&mut stage) {
        Ok(()) => ("ok".to_owned(), ExitCode::SUCCESS),
        Err(error) => (format!("round {}: {error:#}", stage.round), ExitCode::FAILURE),
    };
    if let Err(error) = replace(&suffixed(&stage.path, "result"), &verdict) {
        eprintln!("{verdict}; and it could not be written: {error:#}");
        return ExitCode::FAILURE;
    }
    code
}

/// Plays in a child, by memory that it shares with its parent: makes the number in the word `ball` odd whenever it is even, until the word
/// `stop` is set.
pub fn return_the_ball(memory: &Region, ball: usize, stop: usize) {
    while memory.get(stop) == 0 {
        if memory.get(ball).is_multiple_of(2) {
            memory.set(ball, memory.get(ball) + 1);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a child sleeps for a length of time: it has begun then, and what it has mapped stays so.
///
/// # Errors
/// When it never does.
pub fn wait_until_asleep(child: u32) -> Result<()> {
    let call = format!("{} ", libc::SYS_clock_nanosleep);
    let in_call = || fs::read_to_string(format!("/proc/{child}/syscall")).is_ok_and(|text| text.starts_with(&call));
    wait_until("a child to sleep", in_call)
}

/// Waits, with a deadline, until something is so.
///
/// # Errors
/// When it never was, saying what was waited for.
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(30);
    while !so() {
        anyhow::ensure!(Instant::now() < end, "waited 30 s for: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Asks until two answers in a row are the same. Numbers of namespaces and mounts are others after a restore: where that came in the midst
/// of an answer, half of it is of before.
///
/// # Errors
/// Those of asking; when no two answers ever are the same.
pub fn steady<T: PartialEq>(mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    let mut last = ask()?;
    for _ in 0..1000 {
        let now = ask()?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
    anyhow::bail!("no two answers in a row are the same")
}

/// A child that does this and ends: with 0, or with 1 and the error on its standard error.
///
/// # Errors
/// When it cannot be made.
pub fn child(body: impl FnOnce() -> Result<()>) -> Result<Pid> {
    match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => match body() {
            Ok(()) => exit_now(0),
            Err(error) => {
                eprintln!("{error:#}");
                exit_now(1)
            }
        },
        Forked::Parent { child, .. } => Ok(child),
    }
}

/// Waits for such a child.
///
/// # Errors
/// With how it ended, unless with 0.
pub fn expect_success(child: Pid) -> Result<()> {
    let ended = waitpid(child, None)?;
    ensure!(ended == WaitStatus::Exited(child, 0), "child {child}: {ended:?}");
    Ok(())
}

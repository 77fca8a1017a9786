//! System call filters: threads that have some in common, a child in strict mode, and one that may do next to nothing.
//!
//! With the argument `shared`: two threads of one filter, which a further one is put on both of at the end. That works only if it
//! is one filter and not two equal ones.

use anyhow::{Context, Result, bail, ensure};
use crfs_sys::clone::{CloneArgs, Forked, fork_into};
use crfs_sys::seccomp::{self, allow_only, deny, install};
use crfs_sys::{personality, sched};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const TSYNC: u64 = libc::SECCOMP_FILTER_FLAG_TSYNC;
const LOG: u64 = libc::SECCOMP_FILTER_FLAG_LOG;
/// Answers that no kernel gives to these calls.
const NICE: Errno = Errno::EXFULL;
const IO_PRIORITY: Errno = Errno::ENOTUNIQ;
const PERSONALITY: Errno = Errno::EUNATCH;

fn denying(number: libc::c_long, answer: Errno) -> Vec<seccomp::SockFilter> {
    // Every errno is a small positive number.
    deny(number, u16::try_from(answer as i32).unwrap_or(0))
}

/// What three calls answer: their errno, if they are denied.
fn answers() -> [Option<Errno>; 3] {
    let own = Pid::from_raw(0);
    [sched::nice(own).err(), sched::io_priority(own).err(), personality::get().err()]
}

/// A child that answers each byte with the next number, by reads and writes alone.
struct Echo {
    child: Pid,
    to: PipeWriter,
    from: PipeReader,
    said: u8,
}

impl Echo {
    fn start(confine: fn() -> nix::Result<()>) -> Result<Self> {
        let (mut theirs, to) = pipe()?;
        let (from, mut answer) = pipe()?;
        match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
            Forked::Child => {
                // Before: closing is not among what it may do.
                drop((to, from));
                if confine().is_err() {
                    seccomp::exit_thread(1);
                }
                let mut byte = [0];
                loop {
                    match theirs.read(&mut byte) {
                        Ok(1) if answer.write_all(&[byte[0].wrapping_add(1)]).is_ok() => {}
                        Ok(0) => seccomp::exit_thread(0),
                        _ => seccomp::exit_thread(2),
                    }
                }
            }
            Forked::Parent { child, .. } => Ok(Echo { child, to, from, said: 0 }),
        }
    }

    fn check(&mut self) -> Result<()> {
        self.said = self.said.wrapping_add(1);
        self.to.write_all(&[self.said])?;
        let mut answer = [0];
        self.from.read_exact(&mut answer).with_context(|| format!("child {} says no more", self.child))?;
        ensure!(answer[0] == self.said.wrapping_add(1), "child {} answers {}", self.child, answer[0]);
        Ok(())
    }

    fn end(self) -> Result<()> {
        let Echo { child, to, .. } = self;
        drop(to);
        ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "child {child} did not end as it should");
        Ok(())
    }
}

/// Strict mode takes the time stamp counter away too.
fn strict() -> nix::Result<()> {
    seccomp::set_strict()
}

fn nearly_nothing() -> nix::Result<()> {
    install(&allow_only(&[libc::SYS_read, libc::SYS_write, libc::SYS_exit]), 0).map(drop)
}

#[derive(Default)]
struct Shared {
    rounds: [AtomicU64; 2],
    stop: AtomicBool,
}

/// What a thread does beside the first: checks its filters until it is told to stop.
fn check_on(shared: &Shared, index: usize, expected: [Option<Errno>; 3]) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        ensure!(answers() == expected, "thread {index} is answered {:?}", answers());
        shared.rounds[index].fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The first of the two others has a filter of its own, which it hands on to the second; all have one in common.
fn filters(stage: &mut Stage) -> Result<()> {
    let mut children = [Echo::start(strict)?, Echo::start(nearly_nothing)?];
    let shared = Arc::new(Shared::default());
    let begin = Arc::new(AtomicBool::new(false));
    let thread = {
        let (shared, begin) = (Arc::clone(&shared), Arc::clone(&begin));
        std::thread::spawn(move || -> Result<()> {
            victim::wait_until("the filter of all", || begin.load(Ordering::Relaxed))?;
            install(&denying(libc::SYS_ioprio_get, IO_PRIORITY), LOG)?;
            let expected = [Some(NICE), Some(IO_PRIORITY), None];
            let heir = {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || check_on(&shared, 1, expected))
            };
            let checked = check_on(&shared, 0, expected);
            heir.join().ok().context("the second thread panicked")??;
            checked
        })
    };
    ensure!(install(&denying(libc::SYS_getpriority, NICE), TSYNC)? == 0, "not all got the first filter");
    begin.store(true, Ordering::Relaxed);
    install(&denying(libc::SYS_personality, PERSONALITY), 0)?;
    loop {
        let expected = [Some(NICE), None, Some(PERSONALITY)];
        ensure!(answers() == expected, "the first thread is answered {:?}", answers());
        children.iter_mut().try_for_each(Echo::check)?;
        let rounds = || shared.rounds.each_ref().map(|rounds| rounds.load(Ordering::Relaxed));
        let before = rounds();
        let all = || rounds().iter().zip(&before).all(|(now, then)| now > then);
        victim::wait_until("both threads to check", || all() || thread.is_finished())?;
        if thread.is_finished() || !stage.end_round()? {
            break;
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    thread.join().ok().context("a thread panicked")??;
    // The later one has a copy of what the earlier one reads from.
    children.into_iter().rev().try_for_each(Echo::end)
}

fn one_filter(stage: &mut Stage) -> Result<()> {
    install(&denying(libc::SYS_getpriority, NICE), 0)?;
    let shared = Arc::new(Shared::default());
    let (last, synced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let thread = {
        let (shared, last, synced) = (Arc::clone(&shared), Arc::clone(&last), Arc::clone(&synced));
        std::thread::spawn(move || -> Result<()> {
            check_on(&shared, 0, [Some(NICE), None, None])?;
            last.store(true, Ordering::Relaxed);
            victim::wait_until("a filter from the other thread", || synced.load(Ordering::Relaxed))?;
            ensure!(answers() == [Some(NICE), Some(IO_PRIORITY), None], "then it is answered {:?}", answers());
            Ok(())
        })
    };
    loop {
        ensure!(answers() == [Some(NICE), None, None], "the first thread is answered {:?}", answers());
        if thread.is_finished() || !stage.end_round_and_rest()? {
            break;
        }
    }
    shared.stop.store(true, Ordering::Relaxed);
    victim::wait_until("the other thread's last round", || last.load(Ordering::Relaxed) || thread.is_finished())?;
    let refused_by = install(&denying(libc::SYS_ioprio_get, IO_PRIORITY), TSYNC)?;
    synced.store(true, Ordering::Relaxed);
    ensure!(refused_by == 0, "thread {refused_by} no longer shares the first filter");
    thread.join().ok().context("the thread panicked")?
}

fn run(stage: &mut Stage) -> Result<()> {
    match stage.arguments().first().map(String::as_str) {
        None => filters(stage),
        Some("shared") => one_filter(stage),
        Some(other) => bail!("no such way: {other}"),
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

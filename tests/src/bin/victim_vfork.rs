//! Parents that wait in vfork for children that do not end: they go on waiting, and find what they left when their child has ended.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::clone_fn::sharing_memory;
use crfs_sys::{signal, sigqueue};
use crfs_tests::victim::{self, Stage};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Words of the shared region: all are to end; then of each part the child's id, its count, the count of another thread of its parent, and
/// whether its parent has gone on.
const END: usize = 0;
const PART: usize = 8;
const CHILD: usize = 0;
const COUNT: usize = 1;
const BESIDE: usize = 2;
const WENT_ON: usize = 3;

static REGION: OnceLock<Region> = OnceLock::new();
/// In memory that a parent and its child share, unless that is a copy.
static PRIVATE: AtomicU64 = AtomicU64::new(0);

/// How a parent waits.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Part {
    /// For a child that shares its memory.
    Plain,
    /// For one that is stopped.
    Stopped,
    /// In a thread, while others go on.
    InThread,
    /// For a child with memory of its own.
    Copy,
    /// For a child that waits itself.
    Nested,
    /// With a SIGCHLD pending, of a child that it knows the end of.
    Told,
    /// For the last of several children that share its memory: none but that is waited for.
    Several,
    /// For the child of the nested one: not a part of its own.
    Inner,
}

const PARTS: [Part; 7] =
    [Part::Plain, Part::Stopped, Part::InThread, Part::Copy, Part::Nested, Part::Told, Part::Several];

fn word(part: Part, word: usize) -> &'static AtomicU64 {
    static NOTHING: AtomicU64 = AtomicU64::new(0);
    REGION.get().map_or(&NOTHING, |region| region.word(PART * (part as usize + 1) + word))
}

fn ends() -> bool {
    REGION.get().is_none_or(|region| region.get(END) != 0)
}

/// The child: counts until the end. Nothing here allocates memory.
fn count(part: usize) -> i32 {
    let part = *PARTS.get(part).unwrap_or(&Part::Inner);
    let parent = getppid();
    word(part, CHILD).store(u64::from(getpid().as_raw().unsigned_abs()), Ordering::SeqCst);
    while !ends() {
        word(part, COUNT).fetch_add(1, Ordering::SeqCst);
        PRIVATE.fetch_add(1, Ordering::SeqCst);
        if getppid() != parent {
            return 2;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    7
}

/// A child for which nobody waits yet. Nothing here allocates memory.
fn rest(_: usize) -> i32 {
    while !ends() {
        std::thread::sleep(Duration::from_millis(2));
    }
    6
}

/// The child that waits for one of its own.
fn count_within(_: usize) -> i32 {
    word(Part::Nested, CHILD).store(u64::from(getpid().as_raw().unsigned_abs()), Ordering::SeqCst);
    match sharing_memory(libc::CLONE_VFORK, libc::SIGCHLD, count, Part::Inner as usize) {
        Ok(child) if waitpid(child, None) == Ok(WaitStatus::Exited(child, 7)) => 7,
        _ => 3,
    }
}

fn copy() -> Result<Pid> {
    let flags = u64::from(libc::CLONE_VFORK.cast_unsigned());
    match fork_into(&CloneArgs { flags, exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => exit_now(count(Part::Copy as usize)),
        Forked::Parent { child, .. } => Ok(child),
    }
}

/// Makes the child, and goes on when that has ended.
fn wait_for_child(part: Part) -> Result<()> {
    let numbers = [1.5f64, 2.25, -0.125].map(std::hint::black_box);
    let child = match part {
        Part::Copy => copy()?,
        Part::Nested => sharing_memory(libc::CLONE_VFORK, libc::SIGCHLD, count_within, 0)?,
        _ => sharing_memory(libc::CLONE_VFORK, libc::SIGCHLD, count, part as usize)?,
    };
    word(part, WENT_ON).store(1, Ordering::SeqCst);
    ensure!(ends(), "went on before the end");
    ensure!(std::hint::black_box(numbers) == [1.5, 2.25, -0.125], "numbers are others");
    let told = word(part, CHILD).load(Ordering::SeqCst);
    ensure!(u64::from(child.as_raw().unsigned_abs()) == told, "the child is {told} and not {child}");
    ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 7), "the child ended otherwise");
    let counted = word(part, COUNT).load(Ordering::SeqCst);
    match part {
        Part::Copy => ensure!(PRIVATE.load(Ordering::SeqCst) == 0, "memory of its own was written"),
        Part::Nested => ensure!(PRIVATE.load(Ordering::SeqCst) > 4, "memory is not shared"),
        _ => ensure!(PRIVATE.load(Ordering::SeqCst) == counted, "memory is not what the child left"),
    }
    Ok(())
}

/// A parent; SIGUSR1, which it blocks, comes while it waits.
fn parent(part: Part) -> Result<()> {
    let (usr1, chld) = (signal::bit(libc::SIGUSR1), signal::bit(libc::SIGCHLD));
    signal::set_mask(usr1)?;
    let earlier = match part {
        Part::Told => {
            signal::set_mask(usr1 | chld)?;
            let ended = victim::child(|| Ok(()))?;
            victim::expect_success(ended)?;
            Some(ended)
        }
        // Made before, and with the memory of its parent, which the one that is waited for may have too.
        Part::Several | Part::Copy => Some(sharing_memory(0, libc::SIGCHLD, rest, 0)?),
        _ => None,
    };
    if part == Part::InThread {
        let waiting = std::thread::spawn(move || wait_for_child(part));
        while !waiting.is_finished() {
            word(part, BESIDE).fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
        }
        waiting.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    } else {
        wait_for_child(part)?;
    }
    let taken = sigqueue::take(usr1, Some(Duration::from_secs(10)))?;
    ensure!((taken.code, taken.pid) == (libc::SI_USER, getppid().as_raw()), "SIGUSR1 says {taken:?}");
    match (part, earlier) {
        (Part::Told, Some(ended)) => {
            let taken = sigqueue::take(chld, Some(Duration::from_secs(10)))?;
            ensure!(
                (taken.code, taken.pid) == (libc::CLD_EXITED, ended.as_raw()),
                "SIGCHLD says {taken:?}, not {ended}"
            );
        }
        (_, Some(other)) => {
            ensure!(waitpid(other, None)? == WaitStatus::Exited(other, 6), "another child ended otherwise")
        }
        _ => {}
    }
    ensure!(sigqueue::pending()? == 0, "a signal came: {:#x}", sigqueue::pending()?);
    Ok(())
}

fn counts(part: Part) -> u64 {
    let counted = if part == Part::Nested { Part::Inner } else { part };
    word(counted, COUNT).load(Ordering::SeqCst)
}

fn run(stage: &mut Stage) -> Result<()> {
    let chosen = stage.arguments().first().map(String::as_str);
    let parts: Vec<Part> =
        PARTS.into_iter().filter(|part| chosen.is_none_or(|name| name == format!("{part:?}"))).collect();
    REGION.get_or_init(|| {
        Region::new(4096, Kind { shared: true, noreserve: false }).unwrap_or_else(|errno| panic!("{errno}"))
    });
    let mut parents = Vec::new();
    for &part in &parts {
        let made = victim::child(|| parent(part))?;
        victim::wait_until("a child to count", || counts(part) > 4)?;
        kill(made, Signal::SIGUSR1)?;
        if part == Part::Stopped {
            kill(Pid::from_raw(i32::try_from(word(part, CHILD).load(Ordering::SeqCst))?), Signal::SIGSTOP)?;
            let still = || {
                let before = counts(part);
                std::thread::sleep(Duration::from_millis(20));
                counts(part) == before
            };
            victim::wait_until("a child to stop", still)?;
        }
        parents.push(made);
    }
    loop {
        for &part in &parts {
            let (then, beside) = (counts(part), word(part, BESIDE).load(Ordering::SeqCst));
            if part == Part::Stopped {
                std::thread::sleep(Duration::from_millis(10));
                ensure!(counts(part) == then, "a child goes on although it is stopped");
            } else {
                victim::wait_until("a child that goes on", || counts(part) > then)?;
            }
            if part == Part::InThread {
                victim::wait_until("another thread", || word(part, BESIDE).load(Ordering::SeqCst) > beside)?;
            }
            ensure!(word(part, WENT_ON).load(Ordering::SeqCst) == 0, "{part:?}: went on before its child has ended");
        }
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    REGION.get().into_iter().for_each(|region| region.set(END, 1));
    if parts.contains(&Part::Stopped) {
        kill(Pid::from_raw(i32::try_from(word(Part::Stopped, CHILD).load(Ordering::SeqCst))?), Signal::SIGCONT)?;
    }
    parents.into_iter().try_for_each(victim::expect_success)
}

fn main() -> ExitCode {
    victim::main(run)
}

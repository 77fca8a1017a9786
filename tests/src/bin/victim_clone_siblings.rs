//! Processes that share descriptors and directories with one who is not their parent: its sibling by CLONE_PARENT, and the child
//! of a child that has ended.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::fds::is_open;
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::stat::stat;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, getppid};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Words of the shared region: a question, whether the opener is to change what it shares, the question that it is ready for, what it
/// opened, the end, and the answers of each.
const QUESTION: usize = 0;
const CHANGED: usize = 1;
const READY: usize = 2;
const DESCRIPTOR: usize = 3;
const END: usize = 4;
const ANSWERS: usize = 8;

/// A number that nobody opens anything under.
const UNUSED: u64 = 999;

/// Who answers: the opener, who shares with the others, and is no parent of theirs.
const OPENER: usize = 0;
const SIBLING: usize = 1;
const ORPHAN: usize = 2;

/// Opens a file and goes to another directory, which others see.
fn change(region: &Region) -> Result<File> {
    chdir("/dev")?;
    let opened = File::open("/dev/null")?;
    region.set(DESCRIPTOR, opened.as_raw_fd().unsigned_abs().into());
    Ok(opened)
}

/// Answers questions until the end: whether the opener's descriptor is open, and which directory is the working directory.
fn answer(region: &Region, who: usize) -> Result<()> {
    let word = |index| ANSWERS + who * 4 + index;
    let (parent, mut seen, mut opened) = (getppid(), 0, None);
    while region.get(END) == 0 {
        let question = region.get(QUESTION);
        if who == OPENER && question != seen {
            if region.get(CHANGED) == 1 && opened.is_none() {
                opened = Some(change(region)?);
            }
            region.set(READY, question);
        }
        if question != seen && region.get(READY) == question {
            seen = question;
            let descriptor = i32::try_from(region.get(DESCRIPTOR))?;
            region.set(word(1), is_open(descriptor).into());
            region.set(word(2), stat(".")?.st_ino);
            region.set(word(0), question);
        }
        ensure!(getppid() == parent, "another parent");
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn clone(flags: i32, exit_signal: i32, body: impl FnOnce() -> Result<()>) -> Result<Pid> {
    match fork_into(&CloneArgs { flags: u64::from(flags.cast_unsigned()), exit_signal, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => Ok(child),
        Forked::Child => exit_now(match body() {
            Ok(()) => 7,
            Err(error) => {
                eprintln!("{error:#}");
                1
            }
        }),
    }
}

/// Makes the others, and answers.
fn opener(region: &Region) -> Result<()> {
    let both = libc::CLONE_FILES | libc::CLONE_FS;
    clone(libc::CLONE_PARENT | libc::CLONE_FILES, 0, || answer(region, SIBLING))?;
    let dying = clone(both, libc::SIGCHLD, || {
        clone(both, libc::SIGCHLD, || {
            victim::wait_until("the parent's end", || getppid() == Pid::from_raw(1))?;
            answer(region, ORPHAN)
        })
        .map(drop)
    })?;
    ensure!(waitpid(dying, None)? == WaitStatus::Exited(dying, 7), "the child between");
    answer(region, OPENER)
}

/// The parent of the opener and its sibling, so that the orphan, whom the first process has adopted, is no sibling of theirs.
fn parent(region: &Region) -> Result<()> {
    clone(0, libc::SIGCHLD, || opener(region))?;
    (0..2).try_for_each(|_| expect_success())
}

fn expect_success() -> Result<()> {
    let ended = waitpid(None::<Pid>, None)?;
    ensure!(matches!(ended, WaitStatus::Exited(_, 7)), "a child ended with {ended:?}");
    Ok(())
}

/// Asks everybody, and compares what each can see with what it should.
fn ask(region: &Region) -> Result<()> {
    let (root, dev) = (stat("/")?.st_ino, stat("/dev")?.st_ino);
    let question = region.word(QUESTION).fetch_add(1, Ordering::SeqCst) + 1;
    let changed = region.get(CHANGED) == 1;
    for (who, shares_directories) in [(OPENER, true), (SIBLING, false), (ORPHAN, true)] {
        let word = |index| region.get(ANSWERS + who * 4 + index);
        victim::wait_until("an answer", || word(0) == question)?;
        ensure!((word(1) == 1) == changed, "{who}: the descriptor is open: {}", word(1));
        let directory = if changed && shares_directories { dev } else { root };
        ensure!(word(2) == directory, "{who} is in another directory");
    }
    ensure!(stat(".")?.st_ino == root, "this one's directory was changed");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let region = Region::new(4096, Kind { shared: true, noreserve: false })?;
    region.set(DESCRIPTOR, UNUSED);
    chdir("/")?;
    clone(0, libc::SIGCHLD, || parent(&region))?;
    loop {
        ask(&region)?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // Not in rounds: two images would differ by it.
    region.set(CHANGED, 1);
    ask(&region)?;
    region.set(END, 1);
    (0..2).try_for_each(|_| expect_success())?;
    ensure!(waitpid(None::<Pid>, None) == Err(Errno::ECHILD), "another child");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

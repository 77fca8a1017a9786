//! Asynchronous I/O of the kernel's own: contexts that are used all the time, one with events that nobody reads, and numbers that were
//! given back. With the argument `poll` a request stays under way, with `inherited` a child has its parent's rings.

use anyhow::{Result, bail, ensure};
use crfs_sys::aio::{Context, Event};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{pause, pipe, write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = 8;
/// Requests a round: no divisor of what a ring holds, so that they begin at another place of it each time.
const REQUESTS: usize = 50;
/// Where they read to, and where those do that complete unread.
static READ: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
static UNREAD: AtomicU64 = AtomicU64::new(0);

/// What the file has there.
fn content(word: usize) -> u64 {
    0x1234_5678_9abc_0000 + word as u64
}

fn data(events: &[Event]) -> Result<Vec<u64>> {
    ensure!(events.iter().all(|event| (event.res, event.res2) == (8, 0)), "read was {events:?}");
    Ok(events.iter().map(|event| event.data).collect())
}

fn round(context: &Context, file: BorrowedFd<'_>, told: &EventFd) -> Result<()> {
    READ.iter().for_each(|word| word.store(0, Ordering::SeqCst));
    for (request, at) in (0..REQUESTS).zip((0..WORDS).cycle()) {
        context.read(file, 8 * at as u64, request as u64, &READ[at], Some(told.as_fd()))?;
    }
    let numbers = data(&context.events(REQUESTS, REQUESTS + 1)?)?;
    ensure!(numbers.iter().copied().eq(0..REQUESTS as u64), "completed have {numbers:?}");
    let count = told.read()?;
    ensure!(count == REQUESTS as u64, "the eventfd tells of {count} requests");
    let read: Vec<u64> = READ.iter().map(|word| word.load(Ordering::SeqCst)).collect();
    ensure!((0..WORDS).map(content).eq(read.iter().copied()), "read was {read:x?}");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let file = memfd_create("data", MFdFlags::MFD_CLOEXEC)?;
    let bytes: Vec<u8> = (0..WORDS).map(content).flat_map(u64::to_ne_bytes).collect();
    ensure!(write(&file, &bytes)? == bytes.len(), "the file was not written");
    let told = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?;
    let gone = Context::new(10)?;
    let small = Context::new(1)?;
    let large = Context::new(200)?;
    drop(gone);
    for number in 100..103 {
        large.read(file.as_fd(), 0, number, &UNREAD, None)?;
    }
    ensure!(data(&large.events(1, 1)?)? == [100], "the first to complete is not the first that was asked for");
    let (out, into) = pipe()?;
    let child = match stage.arguments().first().map(String::as_str) {
        None => None,
        Some("poll") => {
            small.poll(out.as_fd(), PollFlags::POLLIN.bits(), 7)?;
            None
        }
        Some("inherited") => {
            Some(match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
                Forked::Parent { child, .. } => child,
                Forked::Child => {
                    if set_pdeathsig(Signal::SIGKILL).is_err() {
                        exit_now(1);
                    }
                    loop {
                        pause();
                    }
                }
            })
        }
        Some(other) => bail!("{other:?} is no argument"),
    };
    loop {
        if stage.arguments().is_empty() {
            round(&small, file.as_fd(), &told)?;
        }
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    if let Some(child) = child {
        kill(child, Signal::SIGKILL)?;
        waitpid(child, None)?;
        return Ok(());
    }
    let left = data(&large.events(2, 10)?)?;
    ensure!(left == [101, 102], "of what had completed is left {left:?}");
    large.read(file.as_fd(), 8, 104, &UNREAD, None)?;
    ensure!(data(&large.events(1, 10)?)? == [104], "what is asked for after the others does not complete");
    ensure!(UNREAD.load(Ordering::SeqCst) == content(1), "it was not read");
    if stage.arguments().is_empty() {
        small.poll(out.as_fd(), PollFlags::POLLIN.bits(), 7)?;
    }
    write(&into, b"x")?;
    let told = small.events(1, 10)?;
    ensure!(told.len() == 1 && told[0].data == 7, "of the pipe is told {told:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

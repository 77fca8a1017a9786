//! Rings of io_uring: one that is used all the time, also for what a thread of the kernel's does, one with completions that nobody takes, and
//! one on which a thread waits. With the argument `poll` a request stays under way; with `polled` a ring is for devices that are polled.

use anyhow::{Result, bail, ensure};
use crfs_sys::io_uring::{Completion, Ring, Shape};
use crfs_tests::victim::{self, Stage};
use nix::poll::PollFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{pipe, write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// `IORING_SETUP_SUBMIT_ALL`; with completions of a number of their own, and of the usual one.
const SHAPE: Shape = Shape { flags: 1 << 7, sq_entries: 4, cq_entries: 64, rings: 4096, sqes: 4096, sqe: 64 };
/// `IORING_SETUP_IOPOLL`
const POLLED: Shape = Shape { flags: 1 << 0, ..SHAPE };
/// More than a page of each part.
const LARGE: Shape = Shape { flags: 0, sq_entries: 256, cq_entries: 512, rings: 12288, sqes: 16384, sqe: 64 };
const WORDS: usize = 8;
/// Requests a round: no divisor of what a ring holds, so that they begin at another place of it each time.
const REQUESTS: usize = 50;
static READ: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// What the file has there.
fn content(word: usize) -> u64 {
    0x1234_5678_9abc_0000 + word as u64
}

/// A wait that is interrupted ends without a failure once anything has completed, whatever number was asked for (`io_cqring_wait`,
/// io_uring/io_uring.c, v6.18).
fn take(ring: &Ring, count: usize) -> Result<Vec<Completion>> {
    let mut taken = Vec::with_capacity(count);
    while taken.len() < count {
        ring.wait(u32::try_from(count - taken.len())?)?;
        taken.extend(std::iter::from_fn(|| ring.next()).take(count - taken.len()));
    }
    Ok(taken)
}

fn round(ring: &Ring, file: BorrowedFd<'_>) -> Result<()> {
    READ.iter().for_each(|word| word.store(0, Ordering::SeqCst));
    for (request, at) in (0..REQUESTS).zip((0..WORDS).cycle()) {
        ring.read(file, 8 * at as u64, request as u64, &READ[at])?;
    }
    let expected: Vec<Completion> = (0..REQUESTS as u64).map(|data| Completion { data, res: 8 }).collect();
    let mut taken = take(ring, REQUESTS)?;
    // What a thread of the kernel's had to do is told of later.
    taken.sort_by_key(|completion| completion.data);
    ensure!(taken == expected, "completed have {taken:?}");
    let read: Vec<u64> = READ.iter().map(|word| word.load(Ordering::SeqCst)).collect();
    ensure!((0..WORDS).map(content).eq(read.iter().copied()), "read was {read:x?}");
    ring.sync(file, 99)?;
    let taken = take(ring, 1)?;
    ensure!(taken == [Completion { data: 99, res: 0 }], "of the fsync is told {taken:?}");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let file = memfd_create("data", MFdFlags::MFD_CLOEXEC)?;
    let bytes: Vec<u8> = (0..WORDS).map(content).flat_map(u64::to_ne_bytes).collect();
    ensure!(write(&file, &bytes)? == bytes.len(), "the file was not written");
    let (ring, idle) = (Ring::new(SHAPE)?, Ring::new(LARGE)?);
    for data in 100..700 {
        idle.nop(data)?;
        ensure!(idle.next() == Some(Completion { data, res: 0 }), "request {data} did not complete");
    }
    (700..703).try_for_each(|data| idle.nop(data))?;
    ensure!(idle.next() == Some(Completion { data: 700, res: 0 }), "the first to complete is not the first");
    let waited_for = Arc::new(Ring::new(SHAPE)?);
    let ring_of_waiter = waited_for.clone();
    let waiter = thread::spawn(move || take(&ring_of_waiter, 1));
    let (out, into) = pipe()?;
    let _polled = match stage.arguments().first().map(String::as_str) {
        None => None,
        Some("poll") => {
            idle.poll(out.as_fd(), PollFlags::POLLIN.bits().cast_unsigned(), 7)?;
            None
        }
        Some("polled") => Some(Ring::new(POLLED)?),
        Some(other) => bail!("{other:?} is no argument"),
    };
    loop {
        round(&ring, file.as_fd())?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    let left: Vec<Completion> = std::iter::from_fn(|| idle.next()).collect();
    ensure!(left == [701, 702].map(|data| Completion { data, res: 0 }), "of what had completed is left {left:?}");
    if stage.arguments() != ["poll"] {
        idle.poll(out.as_fd(), PollFlags::POLLIN.bits().cast_unsigned(), 7)?;
    }
    write(&into, b"x")?;
    let taken = take(&idle, 1)?;
    ensure!(taken == [Completion { data: 7, res: 1 }], "of the pipe is told {taken:?}");
    ensure!(!waiter.is_finished(), "who waits for a completion woke before there was one");
    waited_for.nop(8)?;
    match waiter.join() {
        Ok(taken) => ensure!(taken? == [Completion { data: 8, res: 0 }], "who waits takes something else"),
        Err(_) => bail!("the thread that waits has ended"),
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Requests of io_uring that do not end while the program stands still: a read from a pipe that the program itself fills, when it sees that
//! it has stood still and by nothing else; and one that a thread of the kernel's waits in, which the kernel's freezer ends.

use anyhow::{Context, Result, bail, ensure};
use crfs_sys::io_uring::{Completion, Ring, Shape};
use crfs_tests::victim::{self, Stage};
use nix::unistd::{pipe, write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SHAPE: Shape = Shape { flags: 0, sq_entries: 4, cq_entries: 8, rings: 4096, sqes: 4096, sqe: 64 };
const WORD: u64 = 0x1234_5678_9abc_def0;
const WORD_SIZE: i32 = 8;
/// What the requests are given.
const READING: u64 = 0;
const SPLICING: u64 = 1;
/// `-ERESTARTSYS` (include/linux/errno.h): how the kernel ends a splice when it freezes the thread that waits in it.
const INTERRUPTED: i32 = -512;
static READ: AtomicU64 = AtomicU64::new(0);

/// The program looks at the clock so often, and has stood still when so much has passed in between.
const LOOK: Duration = Duration::from_millis(1);
const STOOD_STILL: Duration = Duration::from_millis(40);
/// Rounds without a request, more than are made while the program runs for a moment in a freeze.
const PAUSE: u64 = 10;

struct Requests {
    ring: Ring,
    read: (OwnedFd, Arc<OwnedFd>),
    is_waited_for: Arc<AtomicBool>,
    spliced: (OwnedFd, OwnedFd),
    into: (OwnedFd, OwnedFd),
    /// The round from which on each may be made again; None while it is under way.
    next: [Option<u64>; 2],
}

fn put(into: &OwnedFd) -> Result<()> {
    ensure!(write(into, &WORD.to_ne_bytes())? == WORD.to_ne_bytes().len(), "the pipe takes less");
    Ok(())
}

/// Writes what is waited for when all have stood still.
fn watch(into: &OwnedFd, is_waited_for: &AtomicBool) -> Result<()> {
    let mut last = Instant::now();
    loop {
        thread::sleep(LOOK);
        if last.elapsed() > STOOD_STILL && is_waited_for.swap(false, Ordering::SeqCst) {
            put(into)?;
        }
        last = Instant::now();
    }
}

impl Requests {
    fn new() -> Result<Self> {
        let (out, into) = pipe()?;
        Ok(Requests {
            ring: Ring::new(SHAPE)?,
            read: (out, Arc::new(into)),
            is_waited_for: Arc::default(),
            spliced: pipe()?,
            into: pipe()?,
            next: [Some(0); 2],
        })
    }

    /// Makes those that are not under way.
    fn make(&mut self, round: u64) -> Result<()> {
        for request in [READING, SPLICING] {
            let next = &mut self.next[usize::try_from(request)?];
            if next.is_none_or(|next| round < next) {
                continue;
            }
            *next = None;
            if request == READING {
                self.ring.read_pipe(self.read.0.as_fd(), READING, &READ)?;
                self.is_waited_for.store(true, Ordering::SeqCst);
            } else {
                self.ring.splice(self.spliced.0.as_fd(), self.into.1.as_fd(), SPLICING)?;
            }
        }
        Ok(())
    }

    /// Takes what has ended.
    fn take(&mut self, round: u64) -> Result<()> {
        while let Some(Completion { data, res }) = self.ring.next() {
            match (data, res) {
                (READING, WORD_SIZE) => {
                    ensure!(READ.swap(0, Ordering::SeqCst) == WORD, "read was something else");
                }
                (SPLICING, WORD_SIZE | INTERRUPTED) => {}
                _ => bail!("of request {data} is told {res}"),
            }
            let next = self.next.get_mut(usize::try_from(data)?).context("no such request")?;
            ensure!(next.replace(round + PAUSE).is_none(), "request {data} has ended twice");
        }
        Ok(())
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let mut requests = Requests::new()?;
    let (into, flag) = (requests.read.1.clone(), requests.is_waited_for.clone());
    let watcher = thread::spawn(move || watch(&into, &flag));
    loop {
        requests.make(stage.round())?;
        if !stage.end_round_and_rest()? {
            break;
        }
        requests.take(stage.round())?;
        ensure!(!watcher.is_finished(), "the thread that watches the clock has ended");
    }
    if requests.is_waited_for.swap(false, Ordering::SeqCst) {
        put(&requests.read.1)?;
    }
    put(&requests.spliced.1)?;
    while requests.next.contains(&None) {
        requests.ring.wait(1)?;
        requests.take(stage.round())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

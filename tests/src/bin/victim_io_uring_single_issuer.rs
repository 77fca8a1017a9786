//! Rings of io_uring that belong to threads: of the first, which asks for what has completed, and of a second; one that takes nothing yet, and
//! one whose thread has ended. The argument `poll` leaves a request under way.

use anyhow::{Context, Result, ensure};
use crfs_sys::io_uring::{Completion, Ring, SETUP_DEFER_TASKRUN, SETUP_R_DISABLED, SETUP_SINGLE_ISSUER, Shape};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{pipe, read, write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread;

/// `IORING_SETUP_COOP_TASKRUN`, and `IORING_SETUP_TASKRUN_FLAG`.
const COOP_TASKRUN: u32 = 1 << 8;
const TASKRUN_FLAG: u32 = 1 << 9;
const SHAPE: Shape =
    Shape { flags: SETUP_SINGLE_ISSUER, sq_entries: 4, cq_entries: 64, rings: 4096, sqes: 4096, sqe: 64 };
const FIRST: Shape = Shape { flags: SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN | TASKRUN_FLAG, ..SHAPE };
const SECOND: Shape = Shape { flags: SETUP_SINGLE_ISSUER | COOP_TASKRUN, ..SHAPE };
const DISABLED: Shape = Shape { flags: SETUP_SINGLE_ISSUER | SETUP_R_DISABLED, ..SHAPE };
/// Requests a round: no divisor of what a ring holds.
const REQUESTS: usize = 7;
const WORD: u64 = 0x1234_5678_9abc_def0;
static READ: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// What a ring is used for, by its thread.
struct User {
    ring: Arc<Ring>,
    word: &'static AtomicU64,
    file: OwnedFd,
    pipe: (OwnedFd, OwnedFd),
}

impl User {
    fn new(shape: Shape, word: &'static AtomicU64) -> Result<Self> {
        let file = memfd_create("data", MFdFlags::MFD_CLOEXEC)?;
        ensure!(write(&file, &WORD.to_ne_bytes())? == 8, "the file was not written");
        Ok(User { ring: Arc::new(Ring::new(shape)?), word, file, pipe: pipe()? })
    }

    fn expect(&self, expected: &[(u64, i32)]) -> Result<()> {
        self.ring.wait(u32::try_from(expected.len())?)?;
        for &(data, res) in expected {
            let taken = self.ring.next();
            ensure!(taken == Some(Completion { data, res }), "of request {data} is told {taken:?}");
        }
        Ok(())
    }

    fn round(&self) -> Result<()> {
        for data in 0..REQUESTS as u64 {
            self.word.store(0, Ordering::SeqCst);
            self.ring.read(self.file.as_fd(), 0, data, self.word)?;
            self.expect(&[(data, 8)])?;
            ensure!(self.word.load(Ordering::SeqCst) == WORD, "read was something else");
        }
        // A thread of the kernel's does it, and tells the thread.
        self.ring.sync(self.file.as_fd(), 90)?;
        self.expect(&[(90, 0)])?;
        self.poll_and_write()?;
        ensure!(self.ring.next().is_none(), "more was completed than was asked for");
        let is = self.ring.enable();
        ensure!(is == Err(Errno::EBADFD), "the thread that the ring belongs to is told {is:?}");
        Ok(())
    }

    /// A request that waits for the pipe, for as long as nothing is written.
    fn poll_and_write(&self) -> Result<()> {
        self.ring.poll(self.pipe.0.as_fd(), PollFlags::POLLIN.bits().cast_unsigned(), 91)?;
        write(&self.pipe.1, b"x")?;
        self.expect(&[(91, 1)])?;
        ensure!(read(&self.pipe.0, &mut [0; 2])? == 1, "the pipe holds something else");
        Ok(())
    }
}

/// The second thread: a round each time it is asked for one, as long as it is.
fn second(
    first: &Ring,
    disabled: &Ring,
    made: &OnceLock<Arc<Ring>>,
    asked: &Receiver<()>,
    done: &Sender<()>,
) -> Result<()> {
    let user = User::new(SECOND, &READ[1])?;
    let _ = made.set(user.ring.clone());
    let left = Ring::new(SHAPE)?;
    (700..703).try_for_each(|data| left.nop(data))?;
    while asked.recv().is_ok() {
        user.round()?;
        let is = first.wait(0);
        ensure!(is == Err(Errno::EEXIST), "who waits on a ring of another thread is told {is:?}");
        done.send(())?;
    }
    let taken: Vec<_> = std::iter::from_fn(|| left.next()).collect();
    let expected = [700, 701, 702].map(|data| Completion { data, res: 0 });
    ensure!(taken == expected, "of what had completed is left {taken:?}");
    disabled.enable()?;
    disabled.nop(5)?;
    ensure!(disabled.next() == Some(Completion { data: 5, res: 0 }), "the ring that was enabled completes nothing");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let user = User::new(FIRST, &READ[0])?;
    let disabled = Arc::new(Ring::new(DISABLED)?);
    let ended = thread::spawn(|| Ring::new(SHAPE)).join().map_err(|_| anyhow::anyhow!("the thread failed"))??;
    if stage.arguments() == ["poll"] {
        user.ring.poll(user.pipe.0.as_fd(), PollFlags::POLLIN.bits().cast_unsigned(), 92)?;
    }
    let made = Arc::new(OnceLock::new());
    let (ask, asked) = channel();
    let (tell, done) = channel();
    let (first, of_second, waiting) = (user.ring.clone(), made.clone(), disabled.clone());
    let thread = thread::spawn(move || second(&first, &waiting, &of_second, &asked, &tell));
    loop {
        if stage.arguments().is_empty() {
            user.round()?;
        }
        ask.send(())?;
        if done.recv().is_err() {
            break;
        }
        let is = made.get().context("the second thread has no ring")?.enable();
        ensure!(is == Err(Errno::EEXIST), "the ring of another thread says {is:?}");
        let is = ended.enable();
        ensure!(is == Err(Errno::EEXIST), "the ring of a thread that has ended says {is:?}");
        let is = disabled.wait(0);
        ensure!(is == Err(Errno::EBADFD), "a ring that is disabled says {is:?}");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    drop(ask);
    thread.join().map_err(|_| anyhow::anyhow!("the second thread failed"))??;
    let is = disabled.nop(6);
    ensure!(is == Err(Errno::EEXIST), "a ring that another thread has enabled says {is:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

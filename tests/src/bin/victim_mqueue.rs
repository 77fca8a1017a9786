//! POSIX message queues: one that is never empty, with messages of all lengths and priorities; one that tells of messages by a signal with a
//! value; some without names that threads wait for, to read and to write; one that nobody has open.

use anyhow::{Context, Result, ensure};
use crfs_sys::mqueue::{self, Attributes};
use crfs_sys::{signal, sigqueue};
use crfs_tests::victim;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

const STREAM: &CStr = c"stream";
const TOLD: &CStr = c"told";
const ALONE: &CStr = c"alone";
/// Of messages beyond a page.
const USUAL: Attributes = Attributes { capacity: 8, message_size: 6000 };
const SMALL: Attributes = Attributes { capacity: 2, message_size: 16 };
const VALUE: usize = 0x1234_5678_9abc;
const LOW: u32 = 3;
const HIGH: u32 = 32767;

fn main() -> ExitCode {
    victim::main(|stage| {
        let stream = mqueue::create(STREAM, USUAL)?;
        let impatient = mqueue::open(STREAM, libc::O_RDONLY | libc::O_NONBLOCK)?;
        fcntl(&impatient, FcntlArg::F_SETFD(FdFlag::empty()))?;
        fchown(&stream, Some(Uid::from_raw(1000)), Some(Gid::from_raw(100)))?;
        fchmod(&stream, Mode::from_bits_retain(0o640))?;
        let told = Told::new()?;
        let waiters = Waiters::start()?;
        leave_one_alone()?;
        let mut sent = VecDeque::new();
        let mut next = 0;
        let send = |sent: &mut VecDeque<u64>, next: &mut u64| -> Result<()> {
            mqueue::send(stream.as_fd(), &text(*next), priority(*next))?;
            sent.push_back(*next);
            *next += 1;
            Ok(())
        };
        for _ in 0..5 {
            send(&mut sent, &mut next)?;
        }
        loop {
            send(&mut sent, &mut next)?;
            let highest = sent.iter().map(|&number| priority(number)).max().unwrap_or(0);
            let place = sent.iter().position(|&number| priority(number) == highest).context("nothing was sent")?;
            let expected = sent.remove(place).context("nothing was sent")?;
            let (got, at) = mqueue::receive(impatient.as_fd())?;
            ensure!(got == text(expected), "message {expected} came as {} other bytes", got.len());
            ensure!(at == highest, "message {expected} has priority {at}");
            told.round()?;
            waiters.round(stage.round())?;
            if !stage.end_round_and_rest()? {
                break;
            }
        }
        let status = fstat(&stream)?;
        ensure!((status.st_uid, status.st_gid, status.st_mode & 0o7777) == (1000, 100, 0o640), "owner or mode changed");
        ensure!(mqueue::attributes(stream.as_fd()) == Ok(USUAL), "how much it holds changed");
        ensure!(FdFlag::from_bits_retain(fcntl(&impatient, FcntlArg::F_GETFD)?) == FdFlag::empty(), "close-on-exec");
        ensure!(OFlag::from_bits_retain(fcntl(&stream, FcntlArg::F_GETFL)?) == OFlag::O_RDWR, "open for less");
        for _ in 0..sent.len() {
            mqueue::receive(impatient.as_fd())?;
        }
        ensure!(mqueue::receive(impatient.as_fd()) == Err(Errno::EAGAIN), "more messages than were sent");
        let alone = mqueue::open(ALONE, libc::O_RDONLY | libc::O_NONBLOCK)?;
        ensure!(
            mqueue::receive(alone.as_fd())? == (b"still here".to_vec(), 1),
            "the message of the queue nobody opened"
        );
        [STREAM, TOLD, ALONE].into_iter().try_for_each(mqueue::unlink)?;
        Ok(())
    })
}

/// From nothing to more than a page.
fn text(number: u64) -> Vec<u8> {
    let length = [0, 1, 100, 4096, 6000][usize::try_from(number % 5).unwrap_or(0)];
    (0..length).map(|at: u64| u8::try_from((number + at) % 251).unwrap_or(0)).collect()
}

fn priority(number: u64) -> u32 {
    if number.is_multiple_of(3) { HIGH } else { LOW }
}

/// A queue that lies there, with its message, for whoever opens it one day.
fn leave_one_alone() -> Result<()> {
    let queue = mqueue::create(ALONE, SMALL)?;
    Ok(mqueue::send(queue.as_fd(), b"still here", 1)?)
}

/// An empty queue whose next message is told by a signal.
struct Told(OwnedFd);

impl Told {
    fn new() -> Result<Self> {
        signal::set_mask(signal::bit(libc::SIGUSR2))?;
        let told = Told(mqueue::create(TOLD, SMALL)?);
        told.register()?;
        Ok(told)
    }

    fn register(&self) -> Result<()> {
        Ok(mqueue::notify(self.0.as_fd(), Some(Some((libc::SIGUSR2, VALUE))))?)
    }

    /// The registration still stands, and is good for one message.
    fn round(&self) -> Result<()> {
        let second = mqueue::notify(self.0.as_fd(), Some(None));
        ensure!(second == Err(Errno::EBUSY), "registering beside the registration: {second:?}");
        mqueue::send(self.0.as_fd(), b"tell", 0)?;
        let taken = sigqueue::take(signal::bit(libc::SIGUSR2), None).context("waiting for the signal")?;
        ensure!((taken.code, taken.value) == (libc::SI_MESGQ, VALUE), "the signal came as {taken:?}");
        mqueue::receive(self.0.as_fd())?;
        self.register()
    }
}

/// Threads that wait: one for requests in a queue without a name, which it answers in another, and one for room in a queue that is full.
struct Waiters {
    requests: OwnedFd,
    answers: OwnedFd,
    full: OwnedFd,
}

impl Waiters {
    fn start() -> Result<Self> {
        let unnamed = |name: &CStr| -> Result<OwnedFd> {
            let queue = mqueue::create(name, SMALL)?;
            mqueue::unlink(name)?;
            Ok(queue)
        };
        let waiters =
            Waiters { requests: unnamed(c"requests")?, answers: unnamed(c"answers")?, full: unnamed(c"full")? };
        let (requests, answers) = (waiters.requests.try_clone()?, waiters.answers.try_clone()?);
        std::thread::spawn(move || -> nix::Result<()> {
            loop {
                let answer = match mqueue::receive(requests.as_fd()) {
                    Ok((request, _)) => request,
                    Err(errno) => errno.desc().bytes().take(16).collect(),
                };
                mqueue::send(answers.as_fd(), &answer, 0)?;
            }
        });
        let full = waiters.full.try_clone()?;
        std::thread::spawn(move || {
            for number in 0u64.. {
                let text = match mqueue::send(full.as_fd(), &number.to_ne_bytes(), 0) {
                    Ok(()) => continue,
                    Err(errno) => errno.desc().bytes().take(16).collect::<Vec<u8>>(),
                };
                // Told at a higher priority than all numbers have.
                if mqueue::send(full.as_fd(), &text, 1).is_err() {
                    break;
                }
            }
        });
        Ok(waiters)
    }

    fn round(&self, round: u64) -> Result<()> {
        let number = round.to_ne_bytes();
        mqueue::send(self.requests.as_fd(), &number, 0)?;
        let (answer, _) = mqueue::receive(self.answers.as_fd())?;
        ensure!(answer == number, "the answer is {:?}", String::from_utf8_lossy(&answer));
        let (text, _) = mqueue::receive(self.full.as_fd())?;
        ensure!(text == number, "what comes next of the full queue is {:?}", String::from_utf8_lossy(&text));
        Ok(())
    }
}

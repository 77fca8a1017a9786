//! POSIX message queues of an ipc namespace apart, under a name that the container's own has too: a number goes from there, where a descriptor of
//! the inner one is open, through both back. One there has no name, and one nobody has open.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::mqueue::{self, Attributes};
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::sched::{CloneFlags, setns, unshare};
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

const NUMBERS: &CStr = c"numbers";
const NAMELESS: &CStr = c"nameless";
const ALONE: &CStr = c"alone";
const INNER: Attributes = Attributes { capacity: 3, message_size: 100 };
const OUTER: Attributes = Attributes { capacity: 4, message_size: 50 };
/// In the shared words: whether the one who left is ready, and its pid.
const READY: usize = 0;
const PID: usize = 1;
const END: u64 = 0;

/// Takes numbers from its own queue, and sends them on to the one outside by way of one without a name, until the end.
fn leaver(shared: &Region, outside: &OwnedFd) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWIPC).context("unshare")?;
    let own = mqueue::create(NUMBERS, INNER)?;
    let nameless = mqueue::create(NAMELESS, INNER)?;
    mqueue::unlink(NAMELESS)?;
    mqueue::send(nameless.as_fd(), b"kept", 1)?;
    mqueue::send(mqueue::create(ALONE, INNER)?.as_fd(), b"nobody's", 7)?;
    shared.set(PID, u64::from(std::process::id()));
    shared.word(READY).fetch_add(1, Ordering::Relaxed);
    loop {
        let (number, priority) = mqueue::receive(own.as_fd())?;
        if number == END.to_ne_bytes() {
            break;
        }
        mqueue::send(nameless.as_fd(), &number, priority + 1)?;
        let (passed, _) = mqueue::receive(nameless.as_fd())?;
        mqueue::send(outside.as_fd(), &passed, priority)?;
    }
    ensure!(mqueue::receive(nameless.as_fd())?.0 == b"kept", "what waited in the queue without a name");
    let alone = mqueue::open(ALONE, libc::O_RDONLY | libc::O_NONBLOCK)?;
    ensure!(mqueue::receive(alone.as_fd())? == (b"nobody's".to_vec(), 7), "what waited in the queue of nobody");
    let again = mqueue::open(NUMBERS, libc::O_RDONLY)?;
    ensure!(mqueue::attributes(again.as_fd()) == Ok(INNER), "the name leads to another queue");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let own = mqueue::create(NUMBERS, OUTER)?;
    let leaver = child(|| leaver(&shared, &own))?;
    victim::wait_until("the other to begin", || shared.get(READY) > 0)?;
    let beginning = File::open("/proc/self/ns/ipc")?;
    setns(File::open(format!("/proc/{}/ns/ipc", shared.get(PID)))?, CloneFlags::CLONE_NEWIPC)?;
    let theirs = mqueue::open(NUMBERS, libc::O_WRONLY)?;
    setns(&beginning, CloneFlags::CLONE_NEWIPC)?;
    let mut round: u64 = 0;
    loop {
        round += 1;
        mqueue::send(theirs.as_fd(), &round.to_ne_bytes(), 5)?;
        let (back, priority) = mqueue::receive(own.as_fd())?;
        ensure!(back == round.to_ne_bytes() && priority == 5, "{back:?} came back in round {round}");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    let again = mqueue::open(NUMBERS, libc::O_RDONLY)?;
    ensure!(mqueue::attributes(again.as_fd()) == Ok(OUTER), "the name leads to another queue");
    ensure!(mqueue::open(ALONE, libc::O_RDONLY).is_err(), "a queue of another namespace is here");
    mqueue::send(theirs.as_fd(), &END.to_ne_bytes(), 5)?;
    expect_success(leaver)?;
    mqueue::unlink(NUMBERS)?;
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! System V objects of ipc namespaces apart: a maker and its child pass a number on through a segment of theirs, to and from one that was
//! attached before they left; another has a namespace below a user namespace of its own. The same id is another segment in each of them. A thread
//! shares the adjustments (SEM_UNDO) of its process, messages wait in a queue, nobody has attached one segment and one is removed.

use anyhow::{Context, Result, ensure};
use crfs_sys::sysv::{
    Attachment, change_semaphore, find_segment, make_queue, make_segment, make_semaphores, remove_segment,
    semaphore_values, send_message, set_semaphore_values, take_message, take_semaphore,
};
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::process::ExitCode;
use std::time::Duration;

/// Of segments with one id in three namespaces. Two are likely to lie at the same address, and differ in nothing but what they say.
const SIZES: [u64; 3] = [20_000, 20_000, 40_000];
const SAID: [&[u8]; 3] = [b"the container's", b"the maker's", b"the stranger's"];
const KEY: i32 = 0x0c0f_fee0;
/// Where numbers are in the segment that all have: what is asked, what came back, the pid of the maker, whether it is the end.
const ASKED: usize = 0;
const ANSWERED: usize = 8;
const STRANGE: usize = 16;
const MAKER: usize = 24;
const END: usize = 32;
/// In the maker's segment: what its child got.
const PASSED: usize = 64;
const RETURNED: usize = 72;
/// Semaphores: one that a thread has taken of, one that it waits for at the end, one that the sharer waits for in each round.
const COUNT: usize = 3;
const HELD: u16 = 0;
const LEAVE: u16 = 1;
const TURN: u16 = 2;

fn get(memory: &Attachment, at: usize) -> u64 {
    let mut bytes = [0; 8];
    let _ = memory.read(at, &mut bytes);
    u64::from_ne_bytes(bytes)
}

fn set(memory: &Attachment, at: usize, value: u64) -> Result<()> {
    Ok(memory.write(at, &value.to_ne_bytes())?)
}

/// A segment of the namespace that the caller is in, which says whose it is, under the id 0.
fn own_segment(whose: usize) -> Result<Attachment> {
    let id = make_segment(libc::IPC_PRIVATE, SIZES[whose], 0o600)?;
    ensure!(id == 0, "the first segment has id {id}");
    let own = Attachment::new(id, true)?;
    own.write(1000, SAID[whose])?;
    Ok(own)
}

/// Looks that an attachment is of that segment.
fn looks(own: &Attachment, whose: usize) -> Result<()> {
    let bytes = own.bytes();
    ensure!(bytes[1000..].starts_with(SAID[whose]), "the segment of another namespace");
    ensure!(u64::try_from(bytes.len())? == SIZES[whose], "it has {} bytes", bytes.len());
    Ok(())
}

/// Looks that the id is that of this segment. In the rounds nothing is attached, for a freeze to find the same whenever it comes.
fn looks_anew(whose: usize) -> Result<()> {
    looks(&Attachment::new(0, false)?, whose)
}

/// The maker's child, which nobody but the maker talks to.
fn sharer(own: &Attachment, semaphores: i32) -> Result<()> {
    loop {
        take_semaphore(semaphores, TURN)?;
        let passed = get(own, PASSED);
        if passed == 0 {
            return looks_anew(1);
        }
        looks(own, 1)?;
        set(own, RETURNED, passed)?;
    }
}

fn maker(all: &Attachment) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWIPC).context("unshare")?;
    let own = own_segment(1)?;
    // The id of the one that all have.
    let gap = make_segment(libc::IPC_PRIVATE, 1, 0o600)?;
    let loose = make_segment(KEY, 70_000, 0o640)?;
    let doomed = make_segment(libc::IPC_PRIVATE, 5000, 0o600)?;
    remove_segment(gap)?;
    Attachment::new(loose, true)?.write(69_990, b"nobody has")?;
    let removed = Attachment::new(doomed, true)?;
    removed.write(10, b"still here")?;
    remove_segment(doomed)?;
    let semaphores = make_semaphores(KEY, COUNT, 0o600)?;
    set_semaphore_values(semaphores, &[5, 0, 0])?;
    let queue = make_queue(KEY, 0o600)?;
    send_message(queue, 3, b"first")?;
    send_message(queue, 2, b"and then")?;
    let child = child(|| sharer(&own, semaphores))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            change_semaphore(semaphores, HELD, -2, true)?;
            take_semaphore(semaphores, LEAVE)
        });
        victim::wait_until("the thread", || semaphore_values(semaphores, COUNT).is_ok_and(|values| values[0] == 3))?;
        set(all, MAKER, u64::from(std::process::id()))?;
        let mut passed = 0;
        while get(all, END) == 0 {
            let asked = get(all, ASKED);
            if asked > passed {
                passed = asked;
                looks(&own, 1)?;
                set(&own, PASSED, asked)?;
                change_semaphore(semaphores, TURN, 1, false)?;
                victim::wait_until("the sharer", || get(&own, RETURNED) == asked)?;
                set(all, ANSWERED, asked)?;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        change_semaphore(semaphores, LEAVE, 1, false)?;
        thread.join().ok().context("the thread panicked")??;
        anyhow::Ok(())
    })?;
    set(&own, PASSED, 0)?;
    change_semaphore(semaphores, TURN, 1, false)?;
    expect_success(child)?;
    looks_anew(1)?;
    let values = semaphore_values(semaphores, COUNT)?;
    ensure!(values[0] == 3, "what a thread took is given back before its process ends: {values:?}");
    ensure!(take_message(queue, 100)? == (3, b"first".to_vec()), "the first message");
    ensure!(take_message(queue, 100)? == (2, b"and then".to_vec()), "the second message");
    ensure!(find_segment(KEY)? == loose, "the key leads to another id");
    ensure!(&Attachment::new(loose, false)?.bytes()[69_990..] == b"nobody has", "the segment nobody had attached");
    ensure!(&removed.bytes()[10..20] == b"still here", "the segment that was removed");
    Ok(())
}

/// A process with namespaces of users and of ipc.
fn stranger(all: &Attachment) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWIPC).context("unshare")?;
    fs::write("/proc/self/uid_map", "0 0 1").context("mapping root")?;
    let own = own_segment(2)?;
    while get(all, END) == 0 {
        looks(&own, 2)?;
        set(all, STRANGE, get(all, ASKED))?;
        std::thread::sleep(Duration::from_millis(1));
    }
    looks_anew(2)
}

fn run(stage: &mut Stage) -> Result<()> {
    let id = make_segment(libc::IPC_PRIVATE, SIZES[0], 0o600)?;
    ensure!(id == 0, "the first segment has id {id}");
    let shared = make_segment(libc::IPC_PRIVATE, 4096, 0o600)?;
    let all = Attachment::new(shared, true)?;
    let (maker, stranger) = (child(|| maker(&all))?, child(|| stranger(&all))?);
    // Whoever leaves for another namespace must not have what has the same id there.
    let outer = Attachment::new(id, true)?;
    outer.write(1000, SAID[0])?;
    victim::wait_until("both to begin", || get(&all, MAKER) > 0)?;
    let theirs = File::open(format!("/proc/{}/ns/ipc", get(&all, MAKER)))?;
    let own = File::open("/proc/self/ns/ipc")?;
    let mut round = 0;
    loop {
        round += 1;
        set(&all, ASKED, round)?;
        victim::wait_until("both to answer", || get(&all, ANSWERED) == round && get(&all, STRANGE) == round)?;
        looks(&outer, 0)?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    set(&all, END, 1)?;
    looks_anew(0)?;
    expect_success(stranger)?;
    expect_success(maker)?;
    setns(&theirs, CloneFlags::CLONE_NEWIPC)?;
    let semaphores = 0;
    let values = semaphore_values(semaphores, COUNT)?;
    ensure!(values[0] == 5, "the end of the process gives nothing back: {values:?}");
    setns(&own, CloneFlags::CLONE_NEWIPC)?;
    remove_segment(id)?;
    remove_segment(shared)?;
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

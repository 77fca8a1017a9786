//! Threads whose next children are born into different pid namespaces: one begun by a thread, where a child is, which another thread has joined for
//! its own; and one that nobody is in yet, had by two threads. So too in a process inside of the first.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::namespaces::of_children;
use crfs_sys::pidfd;
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::stat;
use nix::unistd::{Pid, getpid, gettid};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread::Scope;
use std::time::Duration;

/// Who counts rounds in the shared words of these numbers.
const MAIN: usize = 0;
/// Began one, and has a child there.
const PARENT: usize = 1;
/// Joined that one.
const JOINED: usize = 2;
/// Began one that nobody is in.
const BEGINNER: usize = 3;
/// Has that too.
const SECOND: usize = 4;
/// The child, and two threads of it as those before.
const INNER: usize = 5;
const INNER_BEGINNER: usize = 6;
const INNER_SECOND: usize = 7;
const MEMBERS: usize = 8;
const END: usize = 10;
/// From here on: the id of a thread, as its first look told it; what children born at the end are called, and in which namespace; who of them has ended.
const IDS: usize = 20;
const TOLD: usize = 30;
const SPACES: usize = 40;
const ENDED: usize = 50;

fn space() -> Result<u64> {
    Ok(stat("/proc/self/ns/pid")?.st_ino)
}

fn begin() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWPID).context("unshare")
}

/// Has the children of this thread born where those of another one of its process will be.
fn as_of(shared: &Region, other: usize) -> Result<()> {
    victim::wait_until("the other thread to begin", || shared.get(other) > 0)?;
    let other = Pid::from_raw(i32::try_from(shared.get(IDS + other))?);
    let theirs = of_children(pidfd::open(other, true)?.as_fd()).context("asking for the other's")?;
    setns(theirs, CloneFlags::CLONE_NEWPID).context("setns")
}

fn count(shared: &Region, number: usize) {
    while shared.get(END) == 0 {
        shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bears a child, which tells what it is and lives until the child of `before` has ended.
fn bear(shared: &Region, number: usize, before: Option<usize>) -> Result<()> {
    let born = child(|| {
        shared.set(SPACES + number, space()?);
        shared.set(TOLD + number, u64::try_from(getpid().as_raw())?);
        victim::wait_until("the other child to end", || before.is_none_or(|other| shared.get(ENDED + other) != 0))
    })?;
    expect_success(born)?;
    shared.set(ENDED + number, 1);
    Ok(())
}

/// A thread that begins one, and one that has it too; the second child that is born there is 2.
fn pair<'scope>(
    scope: &'scope Scope<'scope, '_>,
    shared: &'scope Region,
    [first, second]: [usize; 2],
) -> [std::thread::ScopedJoinHandle<'scope, Result<()>>; 2] {
    let beginner = scope.spawn(move || {
        shared.set(IDS + first, u64::try_from(gettid().as_raw())?);
        begin()?;
        count(shared, first);
        bear(shared, first, Some(second))
    });
    let other = scope.spawn(move || {
        as_of(shared, first)?;
        count(shared, second);
        victim::wait_until("the first child to be born", || shared.get(TOLD + first) != 0)?;
        bear(shared, second, None)
    });
    [beginner, other]
}

fn join(thread: std::thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().ok().context("a thread panicked")?
}

/// The child that is the first process of one.
fn inner(shared: &Region) -> Result<()> {
    ensure!(getpid() == Pid::from_raw(1), "the first one is {}", getpid());
    std::thread::scope(|scope| {
        let threads = pair(scope, shared, [INNER_BEGINNER, INNER_SECOND]);
        count(shared, INNER);
        // A restore gives it another number.
        shared.set(SPACES + INNER, space()?);
        threads.into_iter().try_for_each(join)
    })?;
    victim::wait_until("the others to be done", || [PARENT, JOINED].iter().all(|one| shared.get(ENDED + one) != 0))
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = &Region::new(4096, Kind { shared: true, noreserve: false })?;
    std::thread::scope(|scope| {
        let parent = scope.spawn(|| {
            begin()?;
            let first = child(|| inner(shared))?;
            shared.set(IDS + PARENT, u64::try_from(first.as_raw())?);
            count(shared, PARENT);
            bear(shared, PARENT, None)?;
            expect_success(first)
        });
        let joined = scope.spawn(|| {
            victim::wait_until("the child to begin", || shared.get(PARENT) > 0)?;
            setns(File::open(format!("/proc/{}/ns/pid", shared.get(IDS + PARENT)))?, CloneFlags::CLONE_NEWPID)?;
            count(shared, JOINED);
            bear(shared, JOINED, None)
        });
        let [beginner, second] = pair(scope, shared, [BEGINNER, SECOND]);
        loop {
            shared.word(MAIN).fetch_add(1, Ordering::Relaxed);
            let then: Vec<u64> = (0..MEMBERS).map(|number| shared.get(number)).collect();
            let all = || (MAIN + 1..MEMBERS).all(|number| shared.get(number) > then[number]);
            if let Err(error) = victim::wait_until("all to count", all) {
                shared.set(END, 1);
                return Err(error);
            }
            if !stage.end_round_and_rest()? {
                break;
            }
        }
        shared.set(END, 1);
        bear(shared, MAIN, None)?;
        [parent, joined, beginner, second].into_iter().try_for_each(join)
    })?;
    let told = |number: usize| (shared.get(TOLD + number), shared.get(SPACES + number));
    let [own, outer] = [space()?, shared.get(SPACES + INNER)];
    ensure!(told(MAIN).1 == own && outer != own, "the main thread's child is in {:?} and not {own}", told(MAIN));
    for number in [PARENT, JOINED] {
        let (id, space) = told(number);
        ensure!(id > 1 && space == outer, "the child of {number} is {id} in {space}, and the first of {outer}");
    }
    for [first, second] in [[BEGINNER, SECOND], [INNER_BEGINNER, INNER_SECOND]] {
        let (of_first, of_second) = (told(first), told(second));
        ensure!((of_first.0, of_second.0) == (1, 2), "the children of {first} are {of_first:?} and {of_second:?}");
        ensure!(of_first.1 == of_second.1 && ![own, outer].contains(&of_first.1), "they are in {of_first:?}");
    }
    ensure!(told(BEGINNER).1 != told(INNER_BEGINNER).1, "two of them are one");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Pid namespaces inside the container: one with a thread, children, an orphan of a session whose leader is dead and a zombie, another
//! in it, and one that is begun but has nobody yet. Each knows itself and the others under the ids of its own namespace.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::exit_now;
use crfs_sys::owner::{self, F_OWNER_PID};
use crfs_sys::posix_timer::{self, Notify};
use crfs_sys::signal;
use crfs_sys::sigqueue::{self, Taken};
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::stat;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpgrp, getpid, getppid, getsid, gettid, pipe, setpgid, setsid};
use std::fs::File;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Who counts rounds in the shared words of these numbers, and tells its id in the container by the words from `PIDS` on.
const MAKER: usize = 0;
const FIRST: usize = 1;
const THREAD: usize = 2;
const LEADER: usize = 3;
const ORPHAN: usize = 4;
const DEEP_MAKER: usize = 5;
const DEEP: usize = 6;
const DEEPER: usize = 7;
const BEGINNER: usize = 8;
const JOINED: usize = 9;
const MEMBERS: usize = 10;
const END: usize = 20;
const PIDS: usize = 30;
/// What those that are born at the end to members are in their namespaces: as they tell it, and once they have ended.
const TOLD: usize = 40;
const BORN: usize = 50;

const REAL_TIME: i32 = 37;
const VALUE: usize = 77;
const ZOMBIE: i32 = 7;

/// Begins a pid namespace, for children.
fn begin() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWPID).context("unshare")
}

/// What a child of the member is now it tells itself, and the member when that has ended.
fn tell_birth(shared: &Region, number: usize) -> Result<()> {
    let born = child(|| {
        shared.set(TOLD + number, u64::try_from(getpid().as_raw())?);
        Ok(())
    })?;
    expect_success(born)?;
    shared.set(BORN + number, shared.get(TOLD + number));
    Ok(())
}

/// Counts, as long as it is who it was.
fn member(shared: &Region, number: usize) -> Result<()> {
    let identity = || -> Result<[Pid; 5]> { Ok([getpid(), gettid(), getppid(), getpgrp(), getsid(None)?]) };
    let then = identity()?;
    while shared.get(END) == 0 {
        let now = identity()?;
        ensure!(now == then, "member {number} was {then:?} and is {now:?}");
        shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// A thread of the first process, with a timer that signals it and no other.
fn thread(shared: &Region) -> Result<()> {
    signal::block(signal::bit(REAL_TIME))?;
    let timer = posix_timer::create(libc::CLOCK_MONOTONIC, Notify::Thread(REAL_TIME, gettid()), VALUE)?;
    member(shared, THREAD)?;
    posix_timer::set(timer, false, Duration::from_millis(1), Duration::ZERO)?;
    let taken = sigqueue::take(signal::bit(REAL_TIME), Some(Duration::from_secs(30))).context("the timer's signal")?;
    ensure!((taken.signal, taken.value) == (REAL_TIME, VALUE), "took {taken:?}");
    Ok(())
}

/// The first process of the outer one. Its end would be that of all in it, so it waits for those that are not its children.
fn first(shared: &Region) -> Result<()> {
    ensure!((getpid(), getppid()) == (Pid::from_raw(1), Pid::from_raw(0)), "the first one is {}", getpid());
    let leader = child(|| leader(shared))?;
    // Its parent leads its session, and ends.
    let parent = child(|| {
        setsid()?;
        child(|| {
            victim::wait_until("the orphan's parent to end", || getppid() == Pid::from_raw(1))?;
            member(shared, ORPHAN)
        })
        .map(drop)
    })?;
    expect_success(parent)?;
    let zombie = child(|| exit_now(ZOMBIE))?;
    waitid(Id::Pid(zombie), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    let deep_maker = child(|| {
        begin()?;
        let deep = child(|| deep(shared))?;
        member(shared, DEEP_MAKER)?;
        tell_birth(shared, DEEP_MAKER)?;
        expect_success(deep)
    })?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| thread(shared));
        member(shared, FIRST)?;
        thread.join().ok().context("the thread panicked")?
    })?;
    for child in [leader, deep_maker] {
        expect_success(child)?;
    }
    ensure!(waitpid(zombie, None)? == WaitStatus::Exited(zombie, ZOMBIE), "the zombie is another");
    let orphan = waitpid(None, None)?;
    ensure!(matches!(orphan, WaitStatus::Exited(_, 0)), "the orphan: {orphan:?}");
    victim::wait_until("the others to be done", || shared.get(BORN + MAKER) != 0 && shared.get(BORN + JOINED) != 0)
}

/// Leads a session; a signal waits for it, and a pipe signals it.
fn leader(shared: &Region) -> Result<()> {
    setsid()?;
    signal::block(signal::bit(REAL_TIME))?;
    sigqueue::queue(Pid::this(), REAL_TIME, VALUE)?;
    let (reader, _writer) = pipe()?;
    owner::set(reader.as_fd(), F_OWNER_PID, getpid().as_raw())?;
    member(shared, LEADER)?;
    let owner = owner::get(reader.as_fd())?;
    ensure!(owner.id == getpid().as_raw(), "the pipe signals {} and not {}", owner.id, getpid());
    let taken = sigqueue::take(signal::bit(REAL_TIME), Some(Duration::ZERO))?;
    let Taken { signal, pid, value, .. } = taken;
    ensure!((signal, pid, value) == (REAL_TIME, getpid().as_raw(), VALUE), "took {taken:?}");
    Ok(())
}

/// The first process of the inner one, in a process group that it founds.
fn deep(shared: &Region) -> Result<()> {
    ensure!(getpid() == Pid::from_raw(1), "the first one is {}", getpid());
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    let deeper = child(|| member(shared, DEEPER))?;
    member(shared, DEEP)?;
    expect_success(deeper)?;
    victim::wait_until("a last child to have been born", || shared.get(BORN + DEEP_MAKER) != 0)
}

fn maker(shared: &Region) -> Result<()> {
    begin()?;
    let first = child(|| first(shared))?;
    shared.set(PIDS + FIRST, u64::try_from(first.as_raw())?);
    member(shared, MAKER)?;
    tell_birth(shared, MAKER)?;
    expect_success(first)
}

/// What the container calls whom, by /proc/PID/status.
fn status_ids(pid: u64) -> Result<Vec<u64>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("NSpid:")).context("NSpid")?;
    line.split_ascii_whitespace().map(|id| id.parse().context("NSpid")).collect()
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let made = child(|| maker(&shared))?;
    let beginner = child(|| {
        begin()?;
        member(&shared, BEGINNER)?;
        tell_birth(&shared, BEGINNER)
    })?;
    victim::wait_until("the first one to begin", || shared.get(FIRST) > 0)?;
    let first = shared.get(PIDS + FIRST);
    // Whose parent is not in the namespace that it is born into.
    let joined = child(|| {
        setns(File::open(format!("/proc/{first}/ns/pid"))?, CloneFlags::CLONE_NEWPID)?;
        let joined = child(|| member(&shared, JOINED))?;
        expect_success(joined)?;
        tell_birth(&shared, JOINED)
    })?;
    victim::wait_until("all to begin", || (0..MEMBERS).all(|member| shared.get(member) > 0))?;
    let theirs = File::open(format!("/proc/{first}/ns/pid"))?;
    let ids = status_ids(first)?;
    ensure!(ids == [first, 1], "the first one's ids are {ids:?}");
    loop {
        let then: Vec<u64> = (0..MEMBERS).map(|member| shared.get(member)).collect();
        let ended = || {
            let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            waitid(Id::All, look) != Ok(WaitStatus::StillAlive)
        };
        let all_counted = || then.iter().zip(0..).all(|(then, member)| shared.get(member) > *then);
        victim::wait_until("every process to count on", || all_counted() || ended())?;
        ensure!(!ended(), "a process ended early");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    ensure!(status_ids(first)? == ids, "the first one's ids are {:?} and not {ids:?}", status_ids(first)?);
    let held = nix::sys::stat::fstat(theirs.as_fd())?.st_ino;
    ensure!(held == stat(format!("/proc/{first}/ns/pid").as_str())?.st_ino, "the descriptor leads elsewhere");
    shared.set(END, 1);
    for child in [made, beginner, joined] {
        expect_success(child)?;
    }
    // Not the first where there was one, and the first where there was none.
    let born = [DEEP_MAKER, MAKER, JOINED, BEGINNER].map(|member| shared.get(BORN + member));
    ensure!(born[..3].iter().all(|&id| id > 1) && born[3] == 1, "those born at the end have the ids {born:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Kinship that fork alone does not make: children of a thread, siblings by CLONE_PARENT, what a subreaper adopted, and zombies of
//! each; with the core dump of one that left it.

use anyhow::{Context, Result, bail, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getppid, getsid, setsid};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Words of the shared region: a counter for each process, then these.
const WRONG: usize = 100;
const END: usize = 101;
/// A pid, told by a process whose parent is not its maker.
const TOLD: usize = 102;

const CHILD_OF_THREAD: usize = 0;
const PARENT: usize = 1;
const SIBLING: usize = 2;
const SIBLING_OF_THE_DEAD: usize = 3;
const ADOPTED: usize = 4;
const PROCESSES: usize = 5;

/// No wait for what other threads made; the rest as for a look at whatever there is.
const LOOK: WaitPidFlag =
    WaitPidFlag::WEXITED.union(WaitPidFlag::WNOHANG).union(WaitPidFlag::WNOWAIT).union(WaitPidFlag::__WNOTHREAD);

fn child(flags: i32, body: impl FnOnce() -> Result<()>) -> Result<Pid> {
    let exit_signal = if flags == 0 { libc::SIGCHLD } else { 0 };
    match fork_into(&CloneArgs { flags: u64::from(flags.cast_unsigned()), exit_signal, ..CloneArgs::default() })? {
        Forked::Child => exit_now(i32::from(body().is_err())),
        Forked::Parent { child, .. } => Ok(child),
    }
}

/// Counts until the end, as long as its parent and session are the same.
fn count(shared: &Region, index: usize) -> Result<()> {
    let then = (getppid(), getsid(None)?);
    shared.word(index).fetch_add(1, Ordering::Relaxed);
    while shared.get(END) == 0 {
        if (getppid(), getsid(None)?) != then {
            shared.set(WRONG, index as u64 + 1);
        }
        shared.word(index).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn begun(shared: &Region, index: usize) -> Result<()> {
    victim::wait_until("a process to begin", || shared.get(index) > 0)
}

/// A process that adopts nobody, with siblings that its children made.
fn parent(shared: &Region) -> Result<()> {
    let maker = child(0, || {
        setsid()?;
        child(libc::CLONE_PARENT, || count(shared, SIBLING))?;
        count(shared, SIBLING + 50)
    })?;
    let dead = child(0, || {
        setsid()?;
        child(libc::CLONE_PARENT, || count(shared, SIBLING_OF_THE_DEAD)).map(drop)
    })?;
    ensure!(waitpid(dead, None)? == WaitStatus::Exited(dead, 0), "the maker of a sibling failed");
    begun(shared, SIBLING)?;
    begun(shared, SIBLING_OF_THE_DEAD)?;
    count(shared, PARENT)?;
    for _ in 0..3 {
        let ended = waitpid(None::<Pid>, None)?;
        ensure!(matches!(ended, WaitStatus::Exited(_, 0)), "a sibling ended with {ended:?}");
    }
    ensure!(maker != dead && waitpid(None::<Pid>, None) == Err(Errno::ECHILD), "there is another child");
    Ok(())
}

/// A subreaper with an orphan, a zombie that it adopted, and one that leads the orphan's session.
fn subreaper(shared: &Region) -> Result<()> {
    set_child_subreaper(true)?;
    let leader = child(0, || {
        setsid()?;
        child(0, || {
            let maker = getppid();
            shared.set(ADOPTED, 1);
            victim::wait_until("the maker's end", || getppid() != maker)?;
            count(shared, ADOPTED)
        })?;
        let orphan = child(0, || exit_now(9))?;
        shared.set(TOLD, orphan.as_raw().unsigned_abs().into());
        begun(shared, ADOPTED)?;
        exit_now(8)
    })?;
    let seen = |pid| waitid(Id::Pid(pid), LOOK & !WaitPidFlag::__WNOTHREAD);
    victim::wait_until("the leader's end", || seen(leader) == Ok(WaitStatus::Exited(leader, 8)))?;
    let orphan = Pid::from_raw(i32::try_from(shared.get(TOLD))?);
    victim::wait_until("the orphan's end", || seen(orphan) == Ok(WaitStatus::Exited(orphan, 9)))?;
    while shared.get(END) == 0 {
        if seen(orphan) != Ok(WaitStatus::Exited(orphan, 9)) || seen(leader) != Ok(WaitStatus::Exited(leader, 8)) {
            shared.set(WRONG, 50);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for (pid, code) in [(leader, 8), (orphan, 9)] {
        ensure!(waitpid(pid, None)? == WaitStatus::Exited(pid, code), "zombie {pid} is another");
    }
    let adopted = waitpid(None::<Pid>, None)?;
    ensure!(matches!(adopted, WaitStatus::Exited(_, 0)), "the orphan ended with {adopted:?}");
    Ok(())
}

/// The thread that has children of its own.
fn thread(shared: &Region) -> Result<Pid> {
    let lives = child(0, || {
        set_pdeathsig(Signal::SIGTERM)?;
        count(shared, CHILD_OF_THREAD)?;
        std::thread::sleep(Duration::from_secs(60));
        Ok(())
    })?;
    let dead = child(0, || exit_now(6))?;
    victim::wait_until("a zombie", || waitid(Id::Pid(dead), LOOK) == Ok(WaitStatus::Exited(dead, 6)))?;
    shared.set(TOLD + 1, lives.as_raw().unsigned_abs().into());
    while shared.get(END) == 0 {
        ensure!(waitid(Id::Pid(lives), LOOK)? == WaitStatus::StillAlive, "the thread's child is no longer its own");
        ensure!(
            waitid(Id::Pid(dead), LOOK)? == WaitStatus::Exited(dead, 6),
            "the thread's zombie is no longer its own"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    ensure!(waitpid(dead, None)? == WaitStatus::Exited(dead, 6), "the zombie ended otherwise");
    Ok(lives)
}

/// A zombie that dumped core, unless core_pattern forbids.
fn dumped(stage: &Stage) -> Result<(Pid, WaitStatus)> {
    let place = victim::suffixed(stage.path(), "core");
    std::fs::create_dir(&place)?;
    let pid = child(0, || {
        std::env::set_current_dir(&place)?;
        setrlimit(Resource::RLIMIT_CORE, 64 << 20, 64 << 20)?;
        std::process::abort()
    })?;
    let status = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
    std::fs::remove_dir_all(&place)?;
    Ok((pid, status))
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Arc::new(Region::new(4096, Kind { shared: true, noreserve: false })?);
    let (core, status) = dumped(stage)?;
    let parent = child(0, || parent(&shared))?;
    let reaper = child(0, || subreaper(&shared))?;
    let with_children = {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || thread(&shared))
    };
    victim::wait_until("the thread's child", || shared.get(TOLD + 1) > 0)?;
    let lives = Pid::from_raw(i32::try_from(shared.get(TOLD + 1))?);
    loop {
        let before: Vec<u64> = (0..PROCESSES).map(|index| shared.get(index)).collect();
        let all = || (0..PROCESSES).all(|index| shared.get(index) > before[index]);
        victim::wait_until("every process to count on", || {
            all() || shared.get(WRONG) > 0 || with_children.is_finished()
        })?;
        ensure!(!with_children.is_finished(), "{:?}", with_children.join().ok().context("the thread panicked")?);
        ensure!(shared.get(WRONG) == 0, "process {} has another parent, session or zombie", shared.get(WRONG));
        ensure!(waitid(Id::Pid(lives), LOOK) == Err(Errno::ECHILD), "the thread's child is the first thread's");
        ensure!(waitid(Id::Pid(core), LOOK)? == status, "the zombie with the core is another");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    end(&shared, with_children, lives)?;
    ensure!(waitpid(core, None)? == status, "the zombie with the core ended otherwise");
    for (what, pid) in [("the parent of siblings", parent), ("the subreaper", reaper)] {
        match waitpid(pid, None)? {
            WaitStatus::Exited(_, 0) => {}
            other => bail!("{what} ended with {other:?}"),
        }
    }
    Ok(())
}

fn end(shared: &Region, thread: std::thread::JoinHandle<Result<Pid>>, lives: Pid) -> Result<()> {
    shared.set(END, 1);
    thread.join().ok().context("the thread panicked")??;
    let ended = waitpid(lives, None)?;
    let by_signal = ended == WaitStatus::Signaled(lives, Signal::SIGTERM, false);
    ensure!(by_signal, "the thread's end was to end its child, which ended with {ended:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

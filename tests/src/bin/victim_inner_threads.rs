//! Threads in user namespaces inside the container: root's, a user's in a pid namespace with everything else of its own, as in a
//! sandbox, and some of a process that is nobody. Each has its ids in all pid namespaces, and may do there what it could.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{get_no_new_privs, set_no_new_privs};
use nix::unistd::{Gid, Uid, getresuid, gettid, sethostname, setresgid, setresuid};
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// Who is there, by their numbers among the shared words; each has its threads' counts from there on.
const ROOT: usize = 0;
const USER: usize = 10;
const NOBODY: usize = 20;
const MEMBERS: [usize; 3] = [ROOT, USER, NOBODY];
const THREADS: usize = 4;
const END: usize = 40;

const SOMEBODY: u32 = 1000;
/// What an id is that has no other (/proc/sys/kernel/overflowuid).
const OVERFLOW: u32 = 65534;

/// What /proc tells of the calling thread: its ids and capabilities. A file of a thread is not carried while it is open, so nobody looks between
/// beginning and end.
fn facts() -> Result<Vec<String>> {
    let status = fs::read_to_string("/proc/thread-self/status").context("status")?;
    let told =
        |line: &&str| ["NSpid", "NSpgid", "Uid", "Gid", "Cap", "NoNewPrivs"].iter().any(|name| line.starts_with(name));
    Ok(status.lines().filter(told).map(str::to_owned).collect())
}

/// A turn that goes from one thread to the next.
#[derive(Default)]
struct Turn {
    of: Mutex<usize>,
    changed: Condvar,
}

fn thread(shared: &Region, member: usize, number: usize, uid: u32, turn: &Turn) -> Result<()> {
    if number == 1 {
        set_no_new_privs().context("no_new_privs")?;
    }
    let (tid, then) = (gettid(), facts()?);
    loop {
        let mut of = turn.of.lock().ok().context("a thread panicked")?;
        while *of != number {
            of = turn.changed.wait(of).ok().context("a thread panicked")?;
        }
        if shared.get(END) != 0 {
            break;
        }
        ensure!(gettid() == tid, "thread {number} of {member} was {tid} and is {}", gettid());
        let users = getresuid()?;
        ensure!([users.real, users.effective, users.saved].map(Uid::as_raw) == [uid; 3], "{member} is {users:?}");
        ensure!(get_no_new_privs()? == (number == 1), "no_new_privs of thread {number}");
        ensure!(unshare(CloneFlags::CLONE_NEWUSER) == Err(Errno::EINVAL), "a thread left alone");
        shared.word(member + number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
        *of = (number + 1) % THREADS;
        turn.changed.notify_all();
    }
    ensure!(facts()? == then, "thread {number} of {member}: {then:?} became {:?}", facts()?);
    // One after the other, each in a namespace of names that it makes itself.
    let made = unshare(CloneFlags::CLONE_NEWUTS).and_then(|()| sethostname("own"));
    let mut of = turn.of.lock().ok().context("a thread panicked")?;
    *of = (number + 1) % THREADS;
    turn.changed.notify_all();
    made.with_context(|| format!("thread {number} of {member} may not make a namespace"))
}

/// A process with threads, and a child that it made before.
fn threads(shared: &Region, member: usize, uid: u32) -> Result<()> {
    let beside = child(|| {
        while shared.get(END) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    })?;
    let turn = &Turn::default();
    let done: Result<()> = std::thread::scope(|scope| {
        let others = (1..THREADS).map(|number| scope.spawn(move || thread(shared, member, number, uid, turn)));
        let others: Vec<_> = others.collect();
        let own = thread(shared, member, 0, uid, turn);
        others.into_iter().try_for_each(|other| other.join().ok().context("a thread panicked")?)?;
        own
    });
    done?;
    expect_success(beside)
}

/// Writes the maps of the calling process, which has just begun a user namespace.
fn map(inside: u32, outside: u32) -> Result<()> {
    let write = |name: &str, text: String| fs::write(format!("/proc/self/{name}"), text).context(name.to_owned());
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{inside} {outside} 1"))?;
    write("gid_map", format!("{inside} {outside} 1"))
}

fn root(shared: &Region) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare")?;
    map(0, 0)?;
    threads(shared, ROOT, 0)
}

/// A user's, whose process is the first of a pid namespace.
fn user(shared: &Region) -> Result<()> {
    let (user, group) = (Uid::from_raw(SOMEBODY), Gid::from_raw(SOMEBODY));
    setresgid(group, group, group)?;
    setresuid(user, user, user).context("setresuid")?;
    nix::sys::prctl::set_dumpable(true)?;
    let others = CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(CloneFlags::CLONE_NEWUSER | others).context("unshare")?;
    map(0, SOMEBODY)?;
    expect_success(child(|| threads(shared, USER, 0))?)
}

fn nobody(shared: &Region) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare")?;
    threads(shared, NOBODY, OVERFLOW)
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let children = [child(|| root(&shared))?, child(|| user(&shared))?, child(|| nobody(&shared))?];
    let shared = &shared;
    let counts = || MEMBERS.iter().flat_map(|member| (0..THREADS).map(move |number| shared.get(member + number)));
    let ended = || {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        waitid(Id::All, look) != Ok(WaitStatus::StillAlive)
    };
    loop {
        let then: Vec<u64> = counts().collect();
        let all_looked = || counts().zip(&then).all(|(now, then)| now > *then);
        victim::wait_until("every thread to look again", || all_looked() || ended())?;
        ensure!(!ended(), "a process ended early");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    shared.set(END, 1);
    children.into_iter().try_for_each(expect_success)
}

fn main() -> ExitCode {
    victim::main(run)
}

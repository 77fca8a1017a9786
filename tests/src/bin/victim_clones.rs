//! Processes that share memory, descriptors, directories and signal actions without being threads: what one does the other sees.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::clone_fn::sharing_memory;
use crfs_sys::fds::is_open;
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::stat::stat;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, chdir, getppid};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Words of the shared region: a question, and the answers of each child.
const QUESTION: usize = 0;
const DESCRIPTOR: usize = 1;
const END: usize = 2;
const ANSWERS: usize = 8;

static REGION: OnceLock<Region> = OnceLock::new();
/// In memory that only processes of one address space share.
static PRIVATE: AtomicU64 = AtomicU64::new(0);

/// Answers questions until the end: whether the descriptor is open, and which directory is the working directory. Nothing here
/// allocates memory.
fn answer(place: usize) -> i32 {
    let Some(region) = REGION.get() else { return 1 };
    let word = |index| region.word(ANSWERS + place * 4 + index);
    let parent = getppid();
    let mut seen = 0;
    while region.get(END) == 0 {
        let question = region.get(QUESTION);
        if question != seen {
            seen = question;
            let descriptor = i32::try_from(region.get(DESCRIPTOR)).unwrap_or(-1);
            word(1).store(is_open(descriptor).into(), Ordering::SeqCst);
            word(2).store(stat(".").map_or(0, |stat| stat.st_ino), Ordering::SeqCst);
            word(0).store(seen, Ordering::SeqCst);
        }
        PRIVATE.fetch_add(1, Ordering::SeqCst);
        if getppid() != parent {
            return 2;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    7
}

/// Shares everything, has a child of its own by fork, and answers.
fn answer_and_fork(place: usize) -> i32 {
    match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() }) {
        Ok(Forked::Child) => exit_now(answer(place + 1)),
        Ok(Forked::Parent { child, .. }) => match (answer(place), waitpid(child, None)) {
            (7, Ok(WaitStatus::Exited(_, 7))) => 7,
            _ => 3,
        },
        Err(_) => 4,
    }
}

fn fork(flags: i32, place: usize) -> Result<Pid> {
    let flags = u64::from(flags.cast_unsigned());
    match fork_into(&CloneArgs { flags, exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => exit_now(answer(place)),
        Forked::Parent { child, .. } => Ok(child),
    }
}

/// What a child shares: descriptors, directories, memory.
const CHILDREN: [(&str, bool, bool, bool); 5] = [
    ("that shares all", true, true, true),
    ("of the one that shares all", false, false, false),
    ("that shares memory only", false, false, true),
    ("that shares descriptors", true, false, false),
    ("that shares directories", false, true, false),
];

/// Asks every child, and compares what each can see with what it should.
fn ask(region: &Region, descriptor: i32, open: bool, moved: bool, first: u64) -> Result<()> {
    region.set(DESCRIPTOR, descriptor.unsigned_abs().into());
    let question = region.word(QUESTION).fetch_add(1, Ordering::SeqCst) + 1;
    let here = stat(".")?.st_ino;
    for (place, (name, descriptors, directories, _)) in CHILDREN.into_iter().enumerate() {
        let word = |index| region.get(ANSWERS + place * 4 + index);
        victim::wait_until("an answer", || word(0) == question)?;
        let sees = word(1) == 1;
        ensure!(sees == (open && descriptors), "the child {name} has descriptor {descriptor}: {sees}");
        let expected = if directories || !moved { here } else { first };
        ensure!(word(2) == expected, "the child {name} is in another directory");
    }
    Ok(())
}

/// For the end only: a freeze that met an open file of /proc would be refused.
fn ignores(pid: Pid, signal: i32) -> Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    Ok(mask.is_some_and(|mask| mask & crfs_sys::signal::bit(signal) != 0))
}

fn run(stage: &mut Stage) -> Result<()> {
    let region = REGION.get_or_init(|| Region::new(4096, Kind { shared: true, noreserve: false }).expect("memory"));
    let all = libc::CLONE_FILES | libc::CLONE_FS | libc::CLONE_SIGHAND;
    // The exit signal of one of them, which would end this process.
    crfs_sys::signal::ignore(libc::SIGUSR1, true)?;
    let children = [
        sharing_memory(all, libc::SIGCHLD, answer_and_fork, 0)?,
        sharing_memory(0, libc::SIGUSR1, answer, 2)?,
        fork(libc::CLONE_FILES, 3)?,
        fork(libc::CLONE_FS, 4)?,
    ];
    let first = stat(".")?.st_ino;
    // All are there from here on: a fork would inherit what is opened below.
    ask(region, 999, false, false, first)?;
    loop {
        let opened = File::open("/dev/null")?;
        let descriptor = opened.as_raw_fd();
        ask(region, descriptor, true, false, first)?;
        drop(opened);
        ask(region, descriptor, false, false, first)?;
        let then = PRIVATE.load(Ordering::SeqCst);
        victim::wait_until("memory to be shared", || PRIVATE.load(Ordering::SeqCst) > then + 2)?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    chdir("/dev")?;
    ask(region, 999, false, true, first)?;
    for ignored in [true, false] {
        crfs_sys::signal::ignore(libc::SIGUSR2, ignored)?;
        ensure!(ignores(children[0], libc::SIGUSR2)? == ignored, "signal actions are no longer shared");
        ensure!(!ignores(children[1], libc::SIGUSR2)?, "signal actions are shared that were not");
    }
    region.set(END, 1);
    for child in children {
        let ended = victim_wait(child)?;
        ensure!(ended == WaitStatus::Exited(child, 7), "a child ended with {ended:?}");
    }
    ensure!(waitpid(None::<Pid>, Some(nix::sys::wait::WaitPidFlag::__WALL)) == Err(Errno::ECHILD), "another child");
    Ok(())
}

/// One of them has another exit signal, for which plain waits do not wait.
fn victim_wait(child: Pid) -> Result<WaitStatus> {
    Ok(waitpid(child, Some(nix::sys::wait::WaitPidFlag::__WALL))?)
}

fn main() -> ExitCode {
    victim::main(run)
}

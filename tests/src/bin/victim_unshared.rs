//! Namespaces that some of its processes have apart: a child has names of its own, and threads and a child that have them too; another
//! child of that has others, and a third is back where it all began.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::utsname::uname;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, gethostname, sethostname};
use std::ffi::OsString;
use std::fs::{self, File};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Who counts rounds in the shared words of these numbers, and tells by the words from `SEEN` on which name it has.
const MAKER: usize = 0;
const THREAD: usize = 1;
const SHARER: usize = 2;
const OTHER: usize = 3;
const BACK: usize = 4;
const MEMBERS: usize = 5;
const SEEN: usize = 10;
const END: usize = 20;

/// What a member sees.
const AS_MADE: u64 = 1;
const RENAMED: u64 = 2;
const WRONG: u64 = 3;

fn child(body: impl FnOnce() -> Result<()>) -> Result<Pid> {
    match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => match body() {
            Ok(()) => exit_now(0),
            Err(error) => {
                eprintln!("{error:#}");
                exit_now(1)
            }
        },
        Forked::Parent { child, .. } => Ok(child),
    }
}

fn names() -> Result<(OsString, OsString)> {
    let found = uname()?;
    Ok((found.nodename().to_owned(), found.domainname().to_owned()))
}

/// New names in a namespace of the caller's own.
fn leave_for(hostname: &str, domainname: &str) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUTS).context("unshare")?;
    sethostname(hostname)?;
    fs::write("/proc/sys/kernel/domainname", domainname).context("setting the domain name")
}

/// Looks at its names until the end.
fn member(shared: &Region, number: usize) -> Result<()> {
    let (hostname, domainname) = names()?;
    while shared.get(END) == 0 {
        let (host, domain) = names()?;
        let seen = match () {
            () if domain != domainname => WRONG,
            () if host == hostname => AS_MADE,
            () if host == "renamed" => RENAMED,
            () => WRONG,
        };
        shared.set(SEEN + number, seen);
        shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The child that leaves, and makes the others.
fn maker(shared: &Region, beginning: &File) -> Result<()> {
    leave_for("workshop", "crafts.example")?;
    let children = [
        child(|| member(shared, SHARER))?,
        child(|| {
            leave_for("cellar", "")?;
            member(shared, OTHER)
        })?,
        child(|| {
            setns(beginning, CloneFlags::CLONE_NEWUTS)?;
            member(shared, BACK)
        })?,
    ];
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| member(shared, THREAD));
        member(shared, MAKER)?;
        thread.join().ok().context("the thread panicked")?
    })?;
    children.into_iter().try_for_each(expect_success)
}

fn expect_success(child: Pid) -> Result<()> {
    let ended = waitpid(child, None)?;
    ensure!(ended == WaitStatus::Exited(child, 0), "child {child}: {ended:?}");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let own = File::open("/proc/self/ns/uts")?;
    let before = names()?;
    let child = child(|| maker(&shared, &own))?;
    victim::wait_until("all to begin", || (0..MEMBERS).all(|member| shared.get(member) > 0))?;
    let theirs = File::open(format!("/proc/{child}/ns/uts"))?;
    loop {
        ensure!(names()? == before, "the names are {:?} and not {before:?}", names()?);
        let then: Vec<u64> = (0..MEMBERS).map(|member| shared.get(member)).collect();
        victim::wait_until("every process to look again", || {
            then.iter().zip(0..).all(|(then, member)| shared.get(member) > *then)
        })?;
        for member in 0..MEMBERS {
            ensure!(shared.get(SEEN + member) == AS_MADE, "member {member} has other names");
        }
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // Who shared one shares it still, and the descriptor leads there.
    setns(&theirs, CloneFlags::CLONE_NEWUTS)?;
    ensure!(gethostname()? == "workshop", "the descriptor leads to {:?}", gethostname()?);
    sethostname("renamed")?;
    setns(&own, CloneFlags::CLONE_NEWUTS)?;
    ensure!(names()? == before, "the names are {:?} and not {before:?}", names()?);
    let expected = [RENAMED, RENAMED, RENAMED, AS_MADE, AS_MADE];
    victim::wait_until("all who share a namespace to see its new name", || {
        (0..MEMBERS).all(|member| shared.get(SEEN + member) == expected[member])
    })?;
    shared.set(END, 1);
    expect_success(child)
}

fn main() -> ExitCode {
    victim::main(run)
}

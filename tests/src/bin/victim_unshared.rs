//! Namespaces that some of its processes have apart: a child has names of its own and empty ipc and net namespaces, and threads and a child
//! that have them too; another child of that has other names and another net, and a third is back where it all began.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::sockets::{bring_loopback_up, loopback_is_up};
use crfs_sys::sysv::{make_semaphores, remove_semaphores, semaphore_values};
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::stat;
use nix::sys::utsname::uname;
use nix::unistd::{gethostname, getpid, sethostname};
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
/// The id, and one more, of a set of semaphores that is made in their ipc namespace at the end.
const LATE_SET: usize = 21;
/// The pids of members, as they are told.
const PIDS: usize = 30;

/// What a member sees: its names, and which sets of semaphores.
const AS_MADE: u64 = 1;
const RENAMED: u64 = 2;
const WRONG: u64 = 4;
const FIRST_SET: u64 = 8;
const ANOTHER_SET: u64 = 16;

/// How many semaphores the sets have.
const FIRST_COUNT: usize = 2;
const LATE_COUNT: usize = 3;

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

/// Looks at its names, and for the set of semaphores `first`, until the end.
fn member(shared: &Region, number: usize, first: i32) -> Result<()> {
    let (hostname, domainname) = names()?;
    shared.set(PIDS + number, u64::try_from(getpid().as_raw())?);
    while shared.get(END) == 0 {
        let (host, domain) = names()?;
        let mut seen = match () {
            () if domain != domainname => WRONG,
            () if host == hostname => AS_MADE,
            () if host == "renamed" => RENAMED,
            () => WRONG,
        };
        if semaphore_values(first, FIRST_COUNT).is_ok() {
            seen |= FIRST_SET;
        }
        if let Some(late) = shared.get(LATE_SET).checked_sub(1)
            && semaphore_values(i32::try_from(late)?, LATE_COUNT).is_ok()
        {
            seen |= ANOTHER_SET;
        }
        shared.set(SEEN + number, seen);
        shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The child that leaves, and makes the others.
fn maker(shared: &Region, beginning: &[File; 3], first: i32) -> Result<()> {
    leave_for("workshop", "crafts.example")?;
    unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET).context("unshare")?;
    bring_loopback_up()?;
    let children = [
        child(|| member(shared, SHARER, first))?,
        child(|| {
            leave_for("cellar", "")?;
            unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
            member(shared, OTHER, first)
        })?,
        child(|| {
            beginning.iter().try_for_each(|namespace| setns(namespace, CloneFlags::empty()))?;
            member(shared, BACK, first)
        })?,
    ];
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| member(shared, THREAD, first));
        member(shared, MAKER, first)?;
        thread.join().ok().context("the thread panicked")?
    })?;
    children.into_iter().try_for_each(expect_success)
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let of = |process: &str| -> Result<[File; 3]> {
        let open = |name| File::open(format!("/proc/{process}/ns/{name}"));
        Ok([open("uts")?, open("ipc")?, open("net")?])
    };
    let own = of("self")?;
    let before = names()?;
    let first = make_semaphores(libc::IPC_PRIVATE, FIRST_COUNT, 0o600)?;
    let child = child(|| maker(&shared, &own, first))?;
    victim::wait_until("all to begin", || (0..MEMBERS).all(|member| shared.get(member) > 0))?;
    let theirs = of(&child.to_string())?;
    let as_made = [AS_MADE, AS_MADE, AS_MADE, AS_MADE, AS_MADE | FIRST_SET];
    loop {
        ensure!(names()? == before, "the names are {:?} and not {before:?}", names()?);
        let then: Vec<u64> = (0..MEMBERS).map(|member| shared.get(member)).collect();
        victim::wait_until("every process to look again", || {
            then.iter().zip(0..).all(|(then, member)| shared.get(member) > *then)
        })?;
        for (member, expected) in as_made.into_iter().enumerate() {
            let seen = shared.get(SEEN + member);
            ensure!(seen == expected, "member {member} sees {seen} and not {expected}");
        }
        // By a look from afar: an open file of its network would be in the way of a freeze.
        let network =
            |member| Ok::<u64, Errno>(stat(format!("/proc/{}/ns/net", shared.get(PIDS + member)).as_str())?.st_ino);
        let [maker, sharer, other, back, own_network] = victim::steady(|| {
            let own = stat("/proc/self/ns/net")?.st_ino;
            Ok([network(MAKER)?, network(SHARER)?, network(OTHER)?, network(BACK)?, own])
        })?;
        ensure!(maker == sharer && maker != other, "{maker}, {sharer}, {other}: who has which network");
        ensure!(back == own_network && ![maker, other].contains(&back), "{back}, {own_network}: who has which network");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // Who shared one shares it still, and the descriptors lead there.
    theirs.iter().try_for_each(|namespace| setns(namespace, CloneFlags::empty()))?;
    ensure!(gethostname()? == "workshop", "the descriptor leads to {:?}", gethostname()?);
    sethostname("renamed")?;
    ensure!(loopback_is_up()?, "lo was brought up, and is down");
    setns(File::open(format!("/proc/{}/ns/net", shared.get(PIDS + OTHER)))?, CloneFlags::CLONE_NEWNET)?;
    ensure!(!loopback_is_up()?, "lo was down, and is up");
    let late = make_semaphores(libc::IPC_PRIVATE, LATE_COUNT, 0o600)?;
    shared.set(LATE_SET, u64::try_from(late)? + 1);
    own.iter().try_for_each(|namespace| setns(namespace, CloneFlags::empty()))?;
    ensure!(names()? == before, "the names are {:?} and not {before:?}", names()?);
    let renamed = RENAMED | ANOTHER_SET;
    let expected = [renamed, renamed, renamed, AS_MADE | ANOTHER_SET, AS_MADE | FIRST_SET];
    victim::wait_until("all who share a namespace to see what is new in it", || {
        (0..MEMBERS).all(|member| shared.get(SEEN + member) == expected[member])
    })?;
    shared.set(END, 1);
    remove_semaphores(first)?;
    expect_success(child)
}

fn main() -> ExitCode {
    victim::main(run)
}

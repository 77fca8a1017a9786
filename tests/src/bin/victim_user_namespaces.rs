//! User namespaces inside the container: root's, with a child and one that gave up what it may do there, a user's who is root in it, and
//! one without maps. Nobody in them may do anything to what is the container's.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::stat;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Gid, Pid, Uid, getresgid, getresuid, sethostname, setresgid, setresuid};
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Who counts rounds in the shared words of these numbers.
const ROOT: usize = 0;
const CHILD: usize = 1;
const WEAK: usize = 2;
const USER: usize = 3;
const UNMAPPED: usize = 4;
const MEMBERS: usize = 5;
const END: usize = 20;
/// Who has left, and whose maps are written, by words from these on.
const LEFT: usize = 30;
const MAPPED: usize = 40;
/// The pids of members.
const PIDS: usize = 50;

const SOMEBODY: u32 = 1000;
/// What an id is that has no other (/proc/sys/kernel/overflowuid).
const NOBODY: u32 = 65534;

/// Becomes a user for good.
fn become_user(uid: u32) -> Result<()> {
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setresgid(group, group, group)?;
    setresuid(user, user, user).context("setresuid")
}

/// Begins a user namespace, whose maps the first process writes.
fn leave(shared: &Region, number: usize) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare")?;
    shared.set(LEFT + number, u64::try_from(Pid::this().as_raw())?);
    victim::wait_until("maps", || shared.get(MAPPED + number) != 0)
}

/// Looks who it is and that it may not name the container. In the end it makes something that is its own namespace's, if it may.
fn member(shared: &Region, number: usize, uid: u32, is_strong: bool) -> Result<()> {
    shared.set(PIDS + number, u64::try_from(Pid::this().as_raw())?);
    let ids = || -> Result<[u32; 6]> {
        let (users, groups) = (getresuid()?, getresgid()?);
        let users = [users.real, users.effective, users.saved].map(Uid::as_raw);
        let groups = [groups.real, groups.effective, groups.saved].map(Gid::as_raw);
        Ok([users[0], users[1], users[2], groups[0], groups[1], groups[2]])
    };
    let maps = || -> Result<Vec<String>> {
        let read = |name| fs::read_to_string(format!("/proc/self/{name}")).context(name);
        ["uid_map", "gid_map", "setgroups"].into_iter().map(read).collect()
    };
    let then = maps()?;
    while shared.get(END) == 0 {
        ensure!(ids()? == [uid; 6], "member {number} has the ids {:?}", ids()?);
        ensure!(sethostname("broken") == Err(Errno::EPERM), "member {number} may name the container");
        shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    ensure!(maps()? == then, "the maps of member {number} were {then:?} and are {:?}", maps()?);
    let made = unshare(CloneFlags::CLONE_NEWUTS).and_then(|()| sethostname("own"));
    let expected = if is_strong { Ok(()) } else { Err(Errno::EPERM) };
    ensure!(made == expected, "member {number} makes a namespace: {made:?} and not {expected:?}");
    Ok(())
}

fn root(shared: &Region) -> Result<()> {
    leave(shared, ROOT)?;
    let children = [
        child(|| member(shared, CHILD, 0, true))?,
        child(|| {
            become_user(SOMEBODY)?;
            member(shared, WEAK, SOMEBODY, false)
        })?,
    ];
    member(shared, ROOT, 0, true)?;
    children.into_iter().try_for_each(expect_success)
}

/// Writes the maps of who has left.
fn map(shared: &Region, number: usize, map: Option<&str>) -> Result<()> {
    victim::wait_until("a user namespace", || shared.get(LEFT + number) != 0)?;
    if let Some(map) = map {
        let write = |name: &str, text: &str| {
            fs::write(format!("/proc/{}/{name}", shared.get(LEFT + number)), text).with_context(|| name.to_owned())
        };
        if number == USER {
            write("setgroups", "deny")?;
        }
        write("uid_map", map)?;
        write("gid_map", map)?;
    }
    shared.set(MAPPED + number, 1);
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let children = [
        child(|| root(&shared))?,
        child(|| {
            become_user(SOMEBODY)?;
            leave(&shared, USER)?;
            member(&shared, USER, 0, true)
        })?,
        child(|| {
            leave(&shared, UNMAPPED)?;
            member(&shared, UNMAPPED, NOBODY, true)
        })?,
    ];
    map(&shared, ROOT, Some("0 0 1\n1000 1000 5\n"))?;
    map(&shared, USER, Some("0 1000 1\n"))?;
    map(&shared, UNMAPPED, None)?;
    victim::wait_until("all to begin", || (0..MEMBERS).all(|member| shared.get(member) > 0))?;
    let namespace =
        |member: usize| Ok::<u64, Errno>(stat(format!("/proc/{}/ns/user", shared.get(PIDS + member)).as_str())?.st_ino);
    loop {
        let then: Vec<u64> = (0..MEMBERS).map(|member| shared.get(member)).collect();
        let ended = || {
            let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            waitid(Id::All, look) != Ok(WaitStatus::StillAlive)
        };
        let all_looked = || then.iter().zip(0..).all(|(then, member)| shared.get(member) > *then);
        victim::wait_until("every process to look again", || all_looked() || ended())?;
        ensure!(!ended(), "a process ended early");
        let [own, root, child, weak, user, unmapped] = victim::steady(|| {
            let own = stat("/proc/self/ns/user")?.st_ino;
            Ok([own, namespace(ROOT)?, namespace(CHILD)?, namespace(WEAK)?, namespace(USER)?, namespace(UNMAPPED)?])
        })?;
        ensure!(root == child && root == weak, "{root}, {child}, {weak}: those of one namespace");
        ensure!(![own, user, unmapped].contains(&root) && ![own, unmapped].contains(&user), "who is in which");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // What the container calls him.
    let status = fs::read_to_string(format!("/proc/{}/status", shared.get(PIDS + USER)))?;
    ensure!(status.contains("\nUid:\t1000\t1000\t1000\t1000\n"), "the user is another: {status}");
    shared.set(END, 1);
    children.into_iter().try_for_each(expect_success)
}

fn main() -> ExitCode {
    victim::main(run)
}

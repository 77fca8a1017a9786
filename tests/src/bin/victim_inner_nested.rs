//! A sandbox in a sandbox: in a pid namespace that belongs to a user namespace another one that belongs to another; and a third that was begun in
//! the outer one, for children that are not born yet.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::namespaces::{of_children, owner};
use crfs_sys::pidfd;
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{fstat, stat};
use nix::unistd::{Pid, getpid, getppid};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Who counts rounds in the shared words of these numbers.
const OUTER: usize = 0;
const BEGINNER: usize = 1;
const MAKER: usize = 2;
const INNER: usize = 3;
const CHILD: usize = 4;
const MEMBERS: usize = 5;
/// From here on, which of them is to end.
const END: usize = 20;

/// Begins a user namespace and in it a pid namespace, for children.
fn begin() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID).context("unshare")?;
    // The /proc is the container's, where "self" knows all.
    for (name, text) in [("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")] {
        fs::write(format!("/proc/self/{name}"), text).context(name)?;
    }
    Ok(())
}

/// Whether a pid namespace belongs to the caller's user namespace.
fn is_own(namespace: impl AsFd) -> Result<bool> {
    match owner(namespace.as_fd()) {
        // It belongs to one around the caller's.
        Err(Errno::EPERM) => Ok(false),
        owner => Ok(fstat(owner?)?.st_ino == stat("/proc/self/ns/user")?.st_ino),
    }
}

/// Counts, as long as it is who it was.
fn member(shared: &Region, number: usize, own: bool) -> Result<()> {
    let identity = || [getpid(), getppid()];
    let then = identity();
    while shared.get(END + number) == 0 {
        ensure!(identity() == then, "member {number} was {then:?} and is {:?}", identity());
        shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    ensure!(is_own(File::open("/proc/self/ns/pid")?)? == own, "whose the pids of member {number} are");
    Ok(())
}

/// Has begun a pid namespace that nobody is in.
fn beginner(shared: &Region) -> Result<()> {
    begin()?;
    member(shared, BEGINNER, false)?;
    ensure!(
        is_own(of_children(pidfd::open(Pid::from_raw(std::process::id().cast_signed()), false)?.as_fd())?)?,
        "whose it is"
    );
    expect_success(child(|| {
        ensure!(getpid() == Pid::from_raw(1), "the first one born there is {}", getpid());
        Ok(())
    })?)
}

/// The first process of the inner one, and a child.
fn inner(shared: &Region) -> Result<()> {
    ensure!(getpid() == Pid::from_raw(1), "the first one is {}", getpid());
    let second = child(|| member(shared, CHILD, true))?;
    member(shared, INNER, true)?;
    expect_success(second)
}

/// The first process of the outer one.
fn outer(shared: &Region) -> Result<()> {
    ensure!(getpid() == Pid::from_raw(1), "the first one is {}", getpid());
    let others = [
        child(|| beginner(shared))?,
        child(|| {
            begin()?;
            let first = child(|| inner(shared))?;
            member(shared, MAKER, false)?;
            expect_success(first)
        })?,
    ];
    member(shared, OUTER, true)?;
    others.into_iter().try_for_each(expect_success)
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let maker = child(|| {
        begin()?;
        expect_success(child(|| outer(&shared))?)
    })?;
    loop {
        let then: Vec<u64> = (0..MEMBERS).map(|number| shared.get(number)).collect();
        victim::wait_until("all to look again", || (0..MEMBERS).all(|number| shared.get(number) > then[number]))?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    for number in (0..MEMBERS).rev() {
        shared.set(END + number, 1);
    }
    expect_success(maker)
}

fn main() -> ExitCode {
    victim::main(run)
}

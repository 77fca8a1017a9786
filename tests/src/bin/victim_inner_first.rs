//! A container whose first process is in a user namespace of its own, with a thread and a child: root there, and nobody to the container.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::stat;
use nix::unistd::{getresuid, sethostname};
use std::fs;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Who counts rounds in the shared words of these numbers.
const THREAD: usize = 0;
const CHILD: usize = 1;
const END: usize = 2;

/// Is root in a user namespace, and may not name the container.
fn look(theirs: impl Fn() -> Result<u64>) -> Result<()> {
    let users = getresuid()?;
    ensure!([users.real, users.effective, users.saved].iter().all(|user| user.is_root()), "it is {users:?}");
    let (own, theirs) = victim::steady(|| Ok((stat("/proc/self/ns/user")?.st_ino, theirs()?)))?;
    ensure!(own == theirs, "it is in another user namespace");
    ensure!(sethostname("broken") == Err(Errno::EPERM), "it may name the container");
    Ok(())
}

/// Looks until the end, when it makes something that belongs to its own user namespace.
fn member(shared: &Region, number: usize, of: impl Fn() -> Result<u64>) -> Result<()> {
    while shared.get(END) == 0 {
        look(&of)?;
        shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    unshare(CloneFlags::CLONE_NEWUTS).and_then(|()| sethostname("own")).context("a namespace that belongs to its own")
}

fn run(stage: &mut Stage) -> Result<()> {
    let outside = stat("/proc/self/ns/user")?.st_ino;
    unshare(CloneFlags::CLONE_NEWUSER).context("unshare")?;
    for (name, text) in [("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")] {
        fs::write(format!("/proc/self/{name}"), text).context(name)?;
    }
    // Namespaces are counted anew by a restore, so each asks the other.
    let theirs = |process: i32| move || Ok(stat(format!("/proc/{process}/ns/user").as_str())?.st_ino);
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let own = nix::unistd::getpid().as_raw();
    let beside = child(|| member(&shared, CHILD, theirs(own)))?;
    std::thread::scope(|scope| {
        let shared = &shared;
        let thread = scope.spawn(move || member(shared, THREAD, theirs(beside.as_raw())));
        let mut rounds = || -> Result<()> {
            loop {
                let then = [THREAD, CHILD].map(|number| shared.get(number));
                let all_looked = || [THREAD, CHILD].iter().zip(then).all(|(number, then)| shared.get(*number) > then);
                victim::wait_until("both to look again", || all_looked() || thread.is_finished())?;
                ensure!(!thread.is_finished(), "a thread ended early");
                look(theirs(beside.as_raw()))?;
                if !stage.end_round_and_rest()? {
                    return Ok(());
                }
            }
        };
        let done = rounds();
        shared.set(END, 1);
        thread.join().ok().context("the thread panicked")??;
        done
    })?;
    ensure!(stat("/proc/self/ns/user")?.st_ino != outside, "it is in the container's");
    expect_success(beside)
}

fn main() -> ExitCode {
    victim::main(run)
}

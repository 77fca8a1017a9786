//! Processes that stand in directories of /proc of others that have ended: one with its root there, as the sandbox of Chromium has it, one
//! with its working directory alone, and a thread with both of its own. Nothing is in them, and nothing can be made in them.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, chdir, chroot};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Words of the shared memory: rounds of each, and whether they are to end.
const ROOTED: usize = 0;
const PLACED: usize = 1;
const THREAD: usize = 2;
const END: usize = 3;
/// The thread's id, when it is where it goes.
const TID: usize = 4;

/// Has a child that shares the caller's directories go somewhere, and end. Its id.
fn follow(go: impl FnOnce() -> nix::Result<()>) -> Result<Pid> {
    let flags = u64::from(libc::CLONE_FS.cast_unsigned());
    match fork_into(&CloneArgs { flags, exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => exit_now(i32::from(go().is_err())),
        Forked::Parent { child, .. } => expect_success(child).map(|()| child),
    }
}

fn leave_all() -> nix::Result<()> {
    chroot("/proc/self/fdinfo")?;
    chdir("/")
}

/// Nothing is there, time and again.
fn stand(shared: &Region, number: usize, place: &str) -> Result<()> {
    while shared.get(END) == 0 {
        ensure!(fs::read_dir(place).and_then(|mut all| all.next().transpose()).is_err(), "something is in {place:?}");
        let file = Path::new(place).join("file");
        ensure!(File::create(&file).is_err(), "{} was made", file.display());
        shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn placed(shared: &Region) -> Result<()> {
    follow(|| chdir("/proc/self/task"))?;
    ensure!(Path::new("/proc/self").exists(), "the root went too");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_FS)?;
            follow(leave_all)?;
            shared.set(TID, u64::try_from(nix::unistd::gettid().as_raw())?);
            stand(shared, THREAD, "/")
        });
        stand(shared, PLACED, ".")?;
        thread.join().ok().context("the thread panicked")?
    })
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let rooted = child(|| {
        follow(leave_all)?;
        stand(&shared, ROOTED, "/")
    })?;
    let placed = child(|| placed(&shared))?;
    let all = ROOTED..=THREAD;
    victim::wait_until("all to stand there", || all.clone().all(|member| shared.get(member) > 0))?;
    let thread = format!("/proc/{placed}/task/{}", shared.get(TID));
    let links = [
        format!("/proc/{rooted}/root"),
        format!("/proc/{rooted}/cwd"),
        format!("/proc/{placed}/cwd"),
        format!("{thread}/root"),
        format!("{thread}/cwd"),
    ];
    let look = || links.iter().map(fs::read_link).collect::<std::io::Result<Vec<PathBuf>>>();
    let before = look()?;
    loop {
        let then: Vec<u64> = all.clone().map(|member| shared.get(member)).collect();
        victim::wait_until("all to look again", || {
            all.clone().zip(&then).all(|(member, then)| shared.get(member) > *then)
        })?;
        ensure!(look()? == before, "they are in {:?} and not in {before:?}", look()?);
        ensure!(fs::read_link(format!("/proc/{placed}/root"))? == Path::new("/"), "another root");
        for place in &before {
            ensure!(!place.exists(), "{} is there", place.display());
        }
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    shared.set(END, 1);
    expect_success(rooted)?;
    expect_success(placed)
}

fn main() -> ExitCode {
    victim::main(run)
}

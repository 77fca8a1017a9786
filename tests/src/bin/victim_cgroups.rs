//! Cgroups made inside the container, with limits and owners: one that the program moved to, with a thread elsewhere, one with a child,
//! one with a child that is frozen, and an empty one. Where it is it has read in part.

use anyhow::{Context, Result, ensure};
use crfs_sys::clone::{CloneArgs, Forked, fork_into};
use crfs_tests::victim::{self, Stage, suffixed};
use nix::mount::{MsFlags, mount};
use nix::unistd::{Gid, Uid, chown, gettid};
use std::fs::{self, File, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

const NONE: Option<&str> = None;

/// A child that does nothing, in a cgroup.
fn child_in(top: &Path, name: &str) -> Result<i32> {
    match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        // Until the container ends.
        Forked::Child => loop {
            std::thread::sleep(Duration::from_secs(1000));
        },
        Forked::Parent { child, .. } => {
            write(top, &format!("{name}/cgroup.procs"), &child.to_string())?;
            Ok(child.as_raw())
        }
    }
}

fn write(top: &Path, file: &str, text: &str) -> Result<()> {
    fs::write(top.join(file), text).with_context(|| format!("writing {text} to {file}"))
}

fn expect(top: &Path, file: &str, expected: &str) -> Result<()> {
    let text = fs::read_to_string(top.join(file)).with_context(|| format!("reading {file}"))?;
    ensure!(text.trim_end() == expected, "{file} says {text:?} in the place of {expected:?}");
    Ok(())
}

/// Mode, owner and group.
fn look(path: &Path) -> Result<(u32, u32, u32)> {
    let found = fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?;
    Ok((found.mode() & 0o7777, found.uid(), found.gid()))
}

fn give(path: &Path, uid: u32, gid: u32) -> Result<()> {
    chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).with_context(|| format!("{}", path.display()))
}

/// The cgroup that a task is in, as it sees it itself.
fn expect_in(task: &str, expected: &str) -> Result<()> {
    let text = fs::read_to_string(format!("/proc/{task}/cgroup"))?;
    let found = text.lines().find_map(|line| line.strip_prefix("0::"));
    ensure!(found == Some(expected), "task {task} is in {found:?} and not in {expected}");
    Ok(())
}

fn set_up(top: &Path) -> Result<()> {
    fs::create_dir_all(top)?;
    mount(Some("cgroups"), top, Some("cgroup2"), MsFlags::MS_NOSUID, NONE).context("mounting cgroup2")?;
    for name in ["work", "work/aside", "jobs", "jobs/empty", "jobs/a name", "still"] {
        fs::create_dir(top.join(name)).with_context(|| format!("making {name}"))?;
    }
    write(top, "work/aside/cgroup.type", "threaded")?;
    write(top, "jobs/cgroup.max.descendants", "7")?;
    write(top, "jobs/cgroup.max.depth", "2")?;
    // As a cgroup is delegated, and as it is made by whom it was delegated to.
    give(&top.join("jobs"), 12, 34)?;
    give(&top.join("jobs/cgroup.procs"), 12, 34)?;
    fs::set_permissions(top.join("jobs/cgroup.procs"), Permissions::from_mode(0o664))?;
    for entry in fs::read_dir(top.join("jobs/empty"))? {
        give(&entry?.path(), 12, 34)?;
    }
    give(&top.join("jobs/empty"), 12, 34)?;
    fs::set_permissions(top.join("jobs/empty"), Permissions::from_mode(0o750))?;
    Ok(())
}

/// Where it is, as it read the beginning of before: what follows is what it sees itself, also where a restore has read so far.
fn expect_rest(begun: &mut File) -> Result<()> {
    let position = begun.stream_position()?;
    let (mut rest, whole) = (String::new(), fs::read_to_string("/proc/self/cgroup")?);
    begun.read_to_string(&mut rest)?;
    let expected = &whole[usize::try_from(position)?..];
    ensure!(rest == expected, "what follows at {position} is {rest:?} and not {expected:?}");
    begun.seek(SeekFrom::Start(position))?;
    Ok(())
}

struct Members {
    thread: i32,
    busy: i32,
    still: i32,
}

fn check(top: &Path, members: &Members) -> Result<()> {
    expect_in("self", "/work")?;
    expect_in(&format!("self/task/{}", members.thread), "/work/aside")?;
    expect_in(&members.busy.to_string(), "/jobs/a name")?;
    expect_in(&members.still.to_string(), "/still")?;
    expect(top, "work/cgroup.type", "domain threaded")?;
    expect(top, "work/aside/cgroup.type", "threaded")?;
    expect(top, "jobs/cgroup.type", "domain")?;
    expect(top, "jobs/cgroup.max.descendants", "7")?;
    expect(top, "jobs/cgroup.max.depth", "2")?;
    expect(top, "still/cgroup.max.depth", "max")?;
    expect(top, "still/cgroup.freeze", "1")?;
    expect(top, "jobs/cgroup.freeze", "0")?;
    let owners = ["jobs", "jobs/cgroup.procs", "jobs/cgroup.threads", "jobs/empty", "jobs/empty/cgroup.events"];
    let found = owners.map(|name| look(&top.join(name)).ok());
    let expected = [(0o755, 12, 34), (0o664, 12, 34), (0o644, 0, 0), (0o750, 12, 34), (0o444, 12, 34)];
    ensure!(found == expected.map(Some), "modes and owners of {owners:?}: {found:?}");
    let pressure = top.join("work/cgroup.pressure");
    ensure!(!pressure.exists() || fs::read_to_string(pressure)?.trim_end() == "0", "pressure is looked at again");
    // It freezes when it next runs.
    let frozen = || fs::read_to_string(top.join("still/cgroup.events")).is_ok_and(|text| text.contains("frozen 1"));
    victim::wait_until("the frozen child to be so", frozen)
}

fn run(stage: &mut Stage) -> Result<()> {
    let top = suffixed(stage.path(), "cgroups");
    set_up(&top)?;
    if top.join("work/cgroup.pressure").exists() {
        write(&top, "work/cgroup.pressure", "0")?;
    }
    write(&top, "work/cgroup.procs", "0")?;
    let tid = Arc::new(AtomicI32::new(0));
    let own = Arc::clone(&tid);
    let thread = std::thread::spawn(move || {
        own.store(gettid().as_raw(), Ordering::Relaxed);
        // Until the process ends.
        while own.load(Ordering::Relaxed) != 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    victim::wait_until("the thread to begin", || tid.load(Ordering::Relaxed) != 0)?;
    let members = Members {
        thread: tid.load(Ordering::Relaxed),
        busy: child_in(&top, "jobs/a name")?,
        still: child_in(&top, "still")?,
    };
    write(&top, "work/aside/cgroup.threads", &members.thread.to_string())?;
    write(&top, "still/cgroup.freeze", "1")?;
    let mut begun = [File::open("/proc/self/cgroup")?, File::open("/proc/self/cgroup")?];
    for (file, position) in begun.iter_mut().zip([1, 2]) {
        file.seek(SeekFrom::Start(position))?;
    }
    loop {
        check(&top, &members)?;
        begun.iter_mut().try_for_each(expect_rest)?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // A limit holds.
    for name in ["3", "4", "5", "6", "7"] {
        fs::create_dir(top.join("jobs").join(name))?;
    }
    ensure!(fs::create_dir(top.join("jobs/8")).is_err(), "there are more cgroups than the limit allows");
    tid.store(0, Ordering::Relaxed);
    thread.join().ok().context("the thread panicked")
}

fn main() -> ExitCode {
    victim::main(run)
}

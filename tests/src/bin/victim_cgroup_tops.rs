//! Cgroup namespaces that some of its processes have apart: each takes another cgroup for the top of all, and lies in it, below it, beside it
//! or above it. One has mounted its own.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_tests::victim::{self, Stage, child, expect_success, suffixed};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

const NONE: Option<&str> = None;
/// Set when all are to end.
const END: usize = 20;

/// A process and where it lies.
struct Member {
    /// Below the container's own cgroup.
    home: &'static str,
    /// Where it sees itself.
    seen: &'static str,
}

/// Members of the namespace whose top is `work`, from its maker on: where the maker began, below, beside and above it.
const OF_WORK: [Member; 4] = [
    Member { home: "work", seen: "/" },
    Member { home: "work/deep", seen: "/deep" },
    Member { home: "aside", seen: "/../aside" },
    Member { home: "", seen: "/.." },
];
/// The one whose top is the container's own cgroup, as the first process has it, in a namespace of its own.
const OF_ALL: Member = Member { home: "work/deep", seen: "/work/deep" };
/// A word for each of the members, in that order, counts their rounds.
const MEMBERS: usize = OF_WORK.len() + 1;

struct Set {
    top: PathBuf,
    /// Where the maker mounts what it takes for all cgroups.
    own: PathBuf,
    shared: Region,
}

fn write(top: &Path, file: &str, text: &str) -> Result<()> {
    fs::write(top.join(file), text).with_context(|| format!("writing {text} to {file}"))
}

fn expect_in(task: &str, expected: &str) -> Result<()> {
    let text = fs::read_to_string(format!("/proc/{task}/cgroup"))?;
    let found = text.lines().find_map(|line| line.strip_prefix("0::"));
    ensure!(found == Some(expected), "task {task} is in {found:?} and not in {expected}");
    Ok(())
}

/// What mountinfo shows as the top of a mount.
fn top_of(mounted: &Path) -> Result<String> {
    let text = victim::steady(|| Ok(fs::read_to_string("/proc/self/mountinfo")?))?;
    let mut lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|words| words.get(4).is_some_and(|path| Path::new(path) == mounted));
    Ok(line.with_context(|| format!("nothing is mounted on {}", mounted.display()))?[3].to_owned())
}

fn go(set: &Set, home: &str) -> Result<()> {
    write(&set.top, &Path::new(home).join("cgroup.procs").to_string_lossy(), "0")
}

/// Looks where it is until the end.
fn member(set: &Set, number: usize, who: &Member, look: impl Fn() -> Result<()>) -> Result<()> {
    while set.shared.get(END) == 0 {
        expect_in("self", who.seen)?;
        look()?;
        set.shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Makes the namespace of `work`.
fn maker(set: &Set) -> Result<()> {
    go(set, OF_WORK[0].home)?;
    unshare(CloneFlags::CLONE_NEWCGROUP).context("unshare")?;
    mount(Some("own"), &set.own, Some("cgroup2"), MsFlags::empty(), NONE).context("mounting cgroup2")?;
    member(set, 0, &OF_WORK[0], || {
        ensure!(set.own.join("deep").is_dir() && !set.own.join("work").exists(), "another cgroup is mounted");
        ensure!(top_of(&set.own)? == "/", "the top of its mount is {}", top_of(&set.own)?);
        ensure!(top_of(&set.top)? == "/..", "the top of the other mount is {}", top_of(&set.top)?);
        Ok(())
    })
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let set = Set { top: suffixed(stage.path(), "cgroups"), own: suffixed(stage.path(), "own"), shared };
    for place in [&set.top, &set.own] {
        fs::create_dir_all(place)?;
    }
    mount(Some("cgroups"), &set.top, Some("cgroup2"), MsFlags::empty(), NONE).context("mounting cgroup2")?;
    for name in ["work", "work/deep", "aside"] {
        fs::create_dir(set.top.join(name)).with_context(|| format!("making {name}"))?;
    }
    let mut members = vec![child(|| maker(&set))?];
    victim::wait_until("the maker to begin", || set.shared.get(0) > 0)?;
    let theirs = File::open(format!("/proc/{}/ns/cgroup", members[0]))?;
    for (number, who) in OF_WORK.iter().enumerate().skip(1) {
        members.push(child(|| {
            // Before it joins: it may not be let out of the top afterwards (the option nsdelegate).
            go(&set, who.home)?;
            setns(&theirs, CloneFlags::CLONE_NEWCGROUP)?;
            member(&set, number, who, || Ok(()))
        })?);
    }
    members.push(child(|| {
        unshare(CloneFlags::CLONE_NEWCGROUP).context("unshare")?;
        go(&set, OF_ALL.home)?;
        member(&set, MEMBERS - 1, &OF_ALL, || Ok(()))
    })?);
    victim::wait_until("all to begin", || (0..MEMBERS).all(|member| set.shared.get(member) > 0))?;
    let own = File::open("/proc/self/ns/cgroup")?;
    loop {
        expect_in("self", "/")?;
        expect_in(&members[0].to_string(), "/work")?;
        ensure!(top_of(&set.own)? == "/work", "the top of the maker's mount is {}", top_of(&set.own)?);
        let then: Vec<u64> = (0..MEMBERS).map(|member| set.shared.get(member)).collect();
        victim::wait_until("every process to look again", || {
            then.iter().zip(0..).all(|(then, member)| set.shared.get(member) > *then)
        })?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // The descriptor leads there still.
    setns(&theirs, CloneFlags::CLONE_NEWCGROUP)?;
    expect_in("self", "/..")?;
    setns(&own, CloneFlags::CLONE_NEWCGROUP)?;
    expect_in("self", "/")?;
    set.shared.set(END, 1);
    members.into_iter().try_for_each(expect_success)
}

fn main() -> ExitCode {
    victim::main(run)
}

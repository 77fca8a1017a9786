//! A container whose first process has begun a user namespace, and in it everything else: mounts, names, ipc and a network with something in
//! them, pids for a child that is the first of them, and a child with mounts apart from those.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::sockets::{bring_loopback_up, loopback_is_up};
use crfs_sys::sysv::{make_semaphores, semaphore_values};
use crfs_tests::victim::{self, Stage, child, expect_success, suffixed};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::stat;
use nix::unistd::{getpid, getuid, sethostname};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Who counts rounds in the shared words of these numbers.
const INSIDE: usize = 0;
const APART: usize = 1;
const MEMBERS: usize = 2;
/// From here on, which of them is to end.
const END: usize = 20;

const NONE: Option<&str> = None;
const COUNT: usize = 3;

fn proc(at: &Path) -> nix::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), at, Some("proc"), flags, NONE)
}

fn tmpfs(at: &Path) -> nix::Result<()> {
    mount(Some("victim"), at, Some("tmpfs"), MsFlags::empty(), Some("size=64k"))
}

/// Counts as long as `look` is content.
fn member(shared: &Region, number: usize, look: impl Fn() -> Result<()>) -> Result<()> {
    while shared.get(END + number) == 0 {
        look()?;
        shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The first process of the pids inside, whose /proc all see.
fn inside(shared: &Region) -> Result<()> {
    proc(Path::new("/proc")).context("/proc")?;
    member(shared, INSIDE, || {
        ensure!(getpid().as_raw() == 1, "the first one is {}", getpid());
        ensure!(fs::read_link("/proc/self")?.as_os_str() == "1", "/proc shows others");
        Ok(())
    })
}

/// Who has unmounted what the others have.
fn apart(shared: &Region, own: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare")?;
    umount2(own, MntFlags::MNT_DETACH).context("unmounting it in a copy")?;
    member(shared, APART, || {
        ensure!(fs::read_dir(own)?.next().is_none(), "what it unmounted is there");
        Ok(())
    })?;
    tmpfs(own).context("mounting in a copy")
}

/// Leaves all that the container has.
fn leave(own: &Path) -> Result<()> {
    let others = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(CloneFlags::CLONE_NEWUSER | others).context("unshare")?;
    for (name, text) in [("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")] {
        fs::write(format!("/proc/self/{name}"), text).context(name)?;
    }
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).context("making all private")?;
    sethostname("inner")?;
    fs::create_dir_all(own)?;
    tmpfs(own).context("mounting")?;
    fs::write(own.join("note"), "only here")?;
    Ok(())
}

/// What the first process sees in every round.
fn look(own: &Path, set: i32) -> Result<()> {
    ensure!(getuid().is_root() && getpid().as_raw() == 1, "it is another");
    ensure!(nix::unistd::gethostname()? == "inner", "it has another name");
    ensure!(fs::read_to_string(own.join("note"))? == "only here", "what it mounted holds something else");
    ensure!(semaphore_values(set, COUNT)? == [7; COUNT], "its semaphores are others");
    ensure!(!loopback_is_up()?, "lo was down, and is up");
    Ok(())
}

/// Everything in it is its own, and what was there before is not.
fn rule(own: &Path) -> Result<()> {
    sethostname("named").context("naming it")?;
    bring_loopback_up().context("bringing up lo")?;
    let listening = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listening.local_addr()?)?;
    client.write_all(b"x")?;
    listening.accept()?.0.read_exact(&mut [0])?;
    fs::write(own.join("more"), "more")?;
    umount2(own, MntFlags::empty()).context("unmounting what it mounted")?;
    umount2("/proc", MntFlags::MNT_DETACH).context("unmounting its child's /proc")?;
    let locked = umount2("/proc", MntFlags::MNT_DETACH);
    ensure!(locked == Err(Errno::EINVAL), "the container's /proc: {locked:?}");
    unshare(CloneFlags::CLONE_NEWNS).context("a namespace that belongs to its own")
}

fn run(stage: &mut Stage) -> Result<()> {
    let own: PathBuf = suffixed(stage.path(), "own");
    let numbers = || -> Result<Vec<u64>> {
        let number = |name| Ok(stat(format!("/proc/self/ns/{name}").as_str())?.st_ino);
        ["mnt", "uts", "ipc", "net", "cgroup"].into_iter().map(number).collect()
    };
    let before = numbers()?;
    leave(&own)?;
    ensure!(!numbers()?.iter().any(|number| before.contains(number)), "it has not left all");
    let set = make_semaphores(libc::IPC_PRIVATE, COUNT, 0o600)?;
    crfs_sys::sysv::set_semaphore_values(set, &[7; COUNT])?;
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let children = {
        // Where it is the first, it has the /proc of all.
        let first = child(|| inside(&shared))?;
        victim::wait_until("its /proc", || shared.get(INSIDE) > 0)?;
        [first, child(|| apart(&shared, &own))?]
    };
    loop {
        let then = [INSIDE, APART].map(|number| shared.get(number));
        victim::wait_until("all to look again", || (0..MEMBERS).all(|number| shared.get(number) > then[number]))?;
        look(&own, set)?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // The end of the first one would be that of the other.
    for (number, child) in children.into_iter().enumerate().rev() {
        shared.set(END + number, 1);
        expect_success(child)?;
    }
    rule(&own)
}

fn main() -> ExitCode {
    victim::main(run)
}

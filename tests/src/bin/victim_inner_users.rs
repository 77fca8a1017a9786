//! Namespaces of all types that belong to user namespaces inside the container: one of root's with everything in it and another in
//! that, an ordinary user's whose mounts belong to one that nobody is in any more, as sandboxes leave it, and one with a pid namespace that
//! nobody was born into. Who is in them may change what is theirs and nothing else.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::namespaces::owner;
use crfs_tests::victim::{self, Stage, child, expect_success, suffixed};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_dumpable;
use nix::sys::stat::{fstat, stat};
use nix::unistd::{Gid, Uid, gethostname, getpid, getuid, setgroups, sethostname, setresgid, setresuid};
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Who counts rounds in the shared words of these numbers, and tells its pid in the container by the words from `PIDS` on.
const MAKER: usize = 0;
const FIRST: usize = 1;
const NESTED: usize = 2;
const USER: usize = 3;
const BEGINNER: usize = 4;
const MEMBERS: usize = 5;
const END: usize = 20;
const PIDS: usize = 30;
/// The id of the child that is born at the end, where it is born.
const BORN: usize = 41;

const SOMEBODY: u32 = 1000;
/// What the user mounts on, where anybody can reach it.
const THEIRS: &str = "/mnt";
const NONE: Option<&str> = None;

struct Set {
    shared: Region,
    /// A directory to mount on.
    ours: PathBuf,
}

/// Writes the maps of the calling process, which has just begun a user namespace.
fn map(inside: u32, outside: u32) -> Result<()> {
    let write =
        |name: &str, text: String| fs::write(format!("/proc/self/{name}"), text).with_context(|| name.to_owned());
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("{inside} {outside} 1"))?;
    write("gid_map", format!("{inside} {outside} 1"))
}

fn begin(others: CloneFlags) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | others).context("unshare")
}

/// Counts as long as `look` is content.
fn member(set: &Set, number: usize, look: impl Fn() -> Result<()>) -> Result<()> {
    while set.shared.get(END) == 0 {
        look()?;
        set.shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn tell(set: &Set, number: usize, pid: nix::unistd::Pid) -> Result<()> {
    set.shared.set(PIDS + number, u64::try_from(pid.as_raw())?);
    Ok(())
}

fn named(expected: &str) -> Result<()> {
    let name = gethostname()?;
    ensure!(name == expected, "the host is called {name:?} and not {expected}");
    Ok(())
}

fn tmpfs(at: &Path) -> nix::Result<()> {
    mount(Some("t"), at, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=700"))
}

/// A file in memory that belongs to whom here.
fn holds(at: &Path, uid: u32) -> Result<()> {
    let file = at.join("file");
    ensure!(fs::read_to_string(&file)? == "inside", "the file says something else");
    ensure!(fs::metadata(&file)?.uid() == uid, "the file is that of {}", fs::metadata(&file)?.uid());
    Ok(())
}

/// The first process of the pid namespace, in all the namespaces that root's user namespace has.
fn first(set: &Set) -> Result<()> {
    ensure!(getpid().as_raw() == 1, "the first one is {}", getpid());
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
    sethostname("outer")?;
    tmpfs(&set.ours).context("tmpfs")?;
    fs::write(set.ours.join("file"), "inside")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::MS_NOEXEC, NONE).context("proc")?;
    let nested = child(|| {
        begin(CloneFlags::CLONE_NEWUTS)?;
        map(0, 0)?;
        sethostname("inner")?;
        member(set, NESTED, || named("inner"))?;
        ensure!(tmpfs(&set.ours) == Err(Errno::EPERM), "the nested one may mount");
        sethostname("innermost").context("naming the host, nested")
    })?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NONE, "/dev", NONE, flags, NONE).context("protecting /dev")?;
    member(set, FIRST, || {
        named("outer")?;
        ensure!(fs::read_link("/proc/self")?.as_os_str() == "1", "/proc shows another pid namespace");
        holds(&set.ours, 0)
    })?;
    expect_success(nested)?;
    sethostname("end").context("naming the host")?;
    // What it mounted itself it may unmount, and nothing else.
    umount2(&set.ours, MntFlags::empty()).context("unmounting")?;
    umount2("/proc", MntFlags::empty()).context("unmounting /proc")?;
    let locked = umount2("/proc", MntFlags::MNT_DETACH);
    ensure!(locked == Err(Errno::EINVAL), "the container's /proc can be unmounted: {locked:?}");
    tmpfs(&set.ours).context("tmpfs, once more")
}

fn maker(set: &Set) -> Result<()> {
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP
        | CloneFlags::CLONE_NEWPID;
    begin(all)?;
    map(0, 0)?;
    let first = child(|| first(set))?;
    tell(set, FIRST, first)?;
    victim::wait_until("the first process to begin", || set.shared.get(FIRST) > 0)?;
    member(set, MAKER, || Ok(()))?;
    expect_success(first)
}

/// Makes its mounts as root of one user namespace, and lives in another inside of it, as the user it was.
fn user(set: &Set) -> Result<()> {
    let (user, group) = (Uid::from_raw(SOMEBODY), Gid::from_raw(SOMEBODY));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    setresuid(user, user, user)?;
    // What changed its user may not write its own maps otherwise.
    set_dumpable(true)?;
    begin(CloneFlags::CLONE_NEWNS)?;
    map(0, SOMEBODY)?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
    tmpfs(Path::new(THEIRS)).context("the user's tmpfs")?;
    fs::write(Path::new(THEIRS).join("file"), "inside")?;
    begin(CloneFlags::empty())?;
    map(SOMEBODY, 0)?;
    tell(set, USER, getpid())?;
    member(set, USER, || {
        ensure!(getuid().as_raw() == SOMEBODY, "the user is {}", getuid());
        holds(Path::new(THEIRS), SOMEBODY)
    })?;
    let unmounted = umount2(Path::new(THEIRS), MntFlags::empty());
    ensure!(unmounted == Err(Errno::EPERM), "what belongs to another can be unmounted: {unmounted:?}");
    fs::write(Path::new(THEIRS).join("more"), "").context("a file of its own")
}

/// The inode of the user namespace that another one of a process belongs to.
fn owner_of(pid: u64, kind: &str) -> Result<u64> {
    let namespace = File::open(format!("/proc/{pid}/ns/{kind}"))?;
    Ok(fstat(owner(namespace.as_fd())?)?.st_ino)
}

fn looks(set: &Set) -> Result<()> {
    let [first, theirs] = [FIRST, USER].map(|number| set.shared.get(PIDS + number));
    let number = |pid: u64| Ok::<u64, Errno>(stat(format!("/proc/{pid}/ns/user").as_str())?.st_ino);
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "uts"] {
        let (owner, own) = victim::steady(|| Ok((owner_of(first, kind)?, number(first)?)))?;
        ensure!(owner == own, "the namespace of type {kind} belongs to another user namespace");
    }
    let (owner, lives_in, above) = victim::steady(|| {
        let above = crfs_sys::namespaces::parent(File::open(format!("/proc/{theirs}/ns/user"))?.as_fd())?;
        Ok((owner_of(theirs, "mnt")?, number(theirs)?, fstat(&above)?.st_ino))
    })?;
    ensure!(owner == above && lives_in != above, "the user's mounts");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let set = Set { shared, ours: suffixed(stage.path(), "ours") };
    fs::create_dir_all(&set.ours)?;
    let children = [
        child(|| maker(&set))?,
        child(|| user(&set))?,
        child(|| {
            begin(CloneFlags::CLONE_NEWPID)?;
            map(0, 0)?;
            member(&set, BEGINNER, || Ok(()))?;
            expect_success(child(|| {
                set.shared.set(BORN, u64::try_from(getpid().as_raw())?);
                Ok(())
            })?)
        })?,
    ];
    victim::wait_until("all to begin", || (0..MEMBERS).all(|member| set.shared.get(member) > 0))?;
    loop {
        let then: Vec<u64> = (0..MEMBERS).map(|member| set.shared.get(member)).collect();
        victim::wait_until("every process to look again", || {
            then.iter().zip(0..).all(|(then, member)| set.shared.get(member) > *then)
        })?;
        looks(&set)?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    set.shared.set(END, 1);
    children.into_iter().try_for_each(expect_success)?;
    ensure!(set.shared.get(BORN) == 1, "the one that is born at the end has the id {}", set.shared.get(BORN));
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

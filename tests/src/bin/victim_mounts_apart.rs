//! Mount namespaces that some of its processes have apart. One has made all of it private and has a file system in memory in the place of a
//! directory, with files of its own in use there; its child lives there too, and another has gone back to where it all began. A second receives
//! what is mounted in the first, and a third began as a copy of the one apart.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::inotify;
use crfs_tests::victim::{self, Stage, child, expect_success, suffixed};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

const NONE: Option<&str> = None;

/// The words in which members count their rounds.
const APART: usize = 0;
const THREAD: usize = 1;
const CHILD: usize = 2;
const BACK: usize = 3;
const SLAVE: usize = 4;
const COPY: usize = 5;
const MEMBERS: usize = 6;
/// From here on each tells the device of what all have in common.
const DEVICE: usize = 10;
/// Set when the first has mounted something more, and when all are to end.
const MORE: usize = 20;
const END: usize = 21;

struct Set {
    top: PathBuf,
    shared: Region,
}

impl Set {
    fn at(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }
}

fn tmpfs(at: &Path) -> Result<()> {
    mount(Some("t"), at, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755"))
        .with_context(|| format!("mounting a tmpfs on {}", at.display()))
}

fn bind(from: &Path, at: &Path) -> Result<()> {
    mount(Some(from), at, NONE, MsFlags::MS_BIND, NONE).with_context(|| format!("binding {}", from.display()))
}

fn change(at: &Path, flags: MsFlags) -> Result<()> {
    mount(NONE, at, NONE, flags, NONE).with_context(|| format!("changing {}", at.display()))
}

/// What is mounted below a directory, without numbers.
fn mounted(below: &Path) -> Result<Vec<String>> {
    let text = victim::steady(|| Ok(fs::read_to_string("/proc/self/mountinfo")?))?;
    let mut lines = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if words.get(4).is_some_and(|path| Path::new(path).starts_with(below)) {
            let shown = words.iter().skip(3).map(|word| word.split(':').next().unwrap_or(word));
            lines.push(shown.collect::<Vec<_>>().join(" "));
        }
    }
    lines.sort();
    Ok(lines)
}

/// Whether a file says this in the caller's namespace.
fn says(path: &Path, expected: &str) -> Result<()> {
    let found = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    ensure!(found == expected, "{} says {found:?} in the place of {expected:?}", path.display());
    Ok(())
}

/// Looks until the end whether what is mounted stays so, and `look` is content.
fn member(set: &Set, number: usize, look: impl Fn() -> Result<()>) -> Result<()> {
    let expected = mounted(&set.top)?;
    while set.shared.get(END) == 0 {
        // What is read in parts may have changed its numbers in between.
        if set.shared.get(MORE) == 0 {
            victim::wait_until("all mounts to be as they were", || {
                set.shared.get(MORE) != 0 || mounted(&set.top).is_ok_and(|found| found == expected)
            })?;
        }
        look()?;
        set.shared.set(DEVICE + number, fs::metadata(set.at("common"))?.dev());
        set.shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// What whoever is in the namespace apart finds there.
fn looks_apart(set: &Set) -> Result<()> {
    says(&set.at("place/file"), "apart")?;
    says(&set.at("bound/inner"), "in the work")?;
    says(&set.at("taken/lasting"), "of the host")?;
    ensure!(set.at("proc/self/status").exists(), "its own /proc shows another pid namespace");
    ensure!(!set.at("gone/file").exists(), "what was unmounted is there");
    let made = File::create(set.at("common/new"));
    ensure!(made.is_err_and(|refused| refused.kind() == ErrorKind::ReadOnlyFilesystem), "common can be written");
    Ok(())
}

/// Makes the namespace apart, uses what is there, and makes others.
fn apart(set: &Set, beginning: &File, outer: &File) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare")?;
    change(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    tmpfs(&set.at("place"))?;
    fs::write(set.at("place/file"), "apart")?;
    fs::create_dir(set.at("place/work"))?;
    fs::write(set.at("place/work/inner"), "in the work")?;
    bind(&set.at("place/work"), &set.at("bound"))?;
    bind(&set.at("lasting"), &set.at("taken"))?;
    mount(Some("p"), &set.at("proc"), Some("proc"), MsFlags::MS_NOEXEC, NONE).context("mounting proc")?;
    umount(&set.at("gone")).context("unmounting")?;
    change(&set.at("common"), MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY)?;
    std::env::set_current_dir(set.at("place/work"))?;
    let mut inner = File::open("inner")?;
    inner.read_exact(&mut [0; 3])?;
    let mut log = OpenOptions::new().append(true).create(true).open(set.at("place/log"))?;
    log.write_all(b"a line\n")?;
    let gone = OpenOptions::new().read(true).write(true).create_new(true).open("no name")?;
    fs::remove_file("no name")?;
    gone.write_all_at(b"not listed", 0)?;
    mkfifo("fifo", Mode::S_IRUSR | Mode::S_IWUSR)?;
    let mut fifo = OpenOptions::new().read(true).write(true).open("fifo")?;
    fifo.write_all(b"queued")?;
    let watching = inotify::create()?;
    inotify::add_watch(watching.as_fd(), &set.at("place/work"), libc::IN_CREATE)?;
    let look = || -> Result<()> {
        looks_apart(set)?;
        ensure!(std::env::current_dir()? == set.at("place/work"), "it is elsewhere");
        let mut bytes = [0; 10];
        gone.read_exact_at(&mut bytes, 0)?;
        ensure!(&bytes == b"not listed", "the deleted file says {bytes:?}");
        // Opened before it left, under a path that leads elsewhere for it.
        outer.read_exact_at(&mut bytes[..5], 0)?;
        ensure!(&bytes[..5] == b"outer", "the outer file says {bytes:?}");
        // All may get another number between one look and the next.
        victim::wait_until("all that is in use to lie in one file system", || {
            let device = |file: &File| file.metadata().map(|found| found.dev()).ok();
            let here = fs::metadata(".").map(|found| found.dev()).ok();
            device(&gone) == here && device(&inner) == here
        })
    };
    let mut children = vec![
        child(|| member(set, CHILD, || looks_apart(set)))?,
        child(|| {
            setns(beginning, CloneFlags::CLONE_NEWNS)?;
            member(set, BACK, || says(&set.at("place/file"), "outer"))
        })?,
        child(|| {
            unshare(CloneFlags::CLONE_NEWNS).context("unshare")?;
            tmpfs(&set.at("bound"))?;
            fs::write(set.at("bound/inner"), "in the copy")?;
            member(set, COPY, || {
                says(&set.at("bound/inner"), "in the copy")?;
                says(&set.at("place/work/inner"), "in the work")
            })
        })?,
    ];
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| member(set, THREAD, || looks_apart(set)));
        member(set, APART, look)?;
        thread.join().ok().context("the thread panicked")?
    })?;
    children.drain(..).try_for_each(expect_success)?;
    // All goes on where it was.
    let mut rest = String::new();
    inner.read_to_string(&mut rest)?;
    ensure!(rest == "the work", "the rest is {rest:?}");
    log.write_all(b"another\n")?;
    says(&set.at("place/log"), "a line\nanother\n")?;
    let mut bytes = [0; 6];
    fifo.read_exact(&mut bytes)?;
    ensure!(&bytes == b"queued", "the FIFO held {bytes:?}");
    ensure!(inotify::queued(watching.as_fd())? == 0, "something was made where it looks");
    fs::write("new", "")?;
    ensure!(inotify::queued(watching.as_fd())? > 0, "it does not look any more");
    Ok(())
}

/// One that receives what is mounted in the first.
fn slave(set: &Set) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare")?;
    change(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_SLAVE)?;
    member(set, SLAVE, || {
        says(&set.at("place/file"), "outer")?;
        says(&set.at("gone/file"), "gone elsewhere")
    })?;
    says(&set.at("exchange/below/file"), "more")
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let set = Set { top: suffixed(stage.path(), "apart"), shared };
    for name in ["common", "place", "bound", "taken", "proc", "gone", "exchange", "lasting"] {
        fs::create_dir_all(set.at(name))?;
    }
    for name in ["common", "gone", "exchange"] {
        tmpfs(&set.at(name))?;
    }
    change(&set.at("exchange"), MsFlags::MS_SHARED)?;
    fs::create_dir(set.at("exchange/below"))?;
    fs::write(set.at("common/file"), "of all")?;
    fs::write(set.at("gone/file"), "gone elsewhere")?;
    fs::write(set.at("place/file"), "outer")?;
    fs::write(set.at("lasting/lasting"), "of the host")?;
    let outer = File::open(set.at("place/file"))?;
    let beginning = File::open("/proc/self/ns/mnt")?;
    let members = [child(|| apart(&set, &beginning, &outer))?, child(|| slave(&set))?];
    victim::wait_until("all to begin", || (0..MEMBERS).all(|member| set.shared.get(member) > 0))?;
    let expected = mounted(&set.top)?;
    loop {
        victim::wait_until("all mounts to be as they were", || mounted(&set.top).is_ok_and(|found| found == expected))?;
        says(&set.at("place/file"), "outer")?;
        says(&set.at("common/file"), "of all")?;
        let then: Vec<u64> = (0..MEMBERS).map(|member| set.shared.get(member)).collect();
        victim::wait_until("every process to look again", || {
            then.iter().zip(0..).all(|(then, member)| set.shared.get(member) > *then + 1)
        })?;
        victim::wait_until("all to see the same file system in common", || {
            let device = fs::metadata(set.at("common")).map_or(0, |found| found.dev());
            (0..MEMBERS).all(|member| set.shared.get(DEVICE + member) == device)
        })?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    set.shared.set(MORE, 1);
    tmpfs(&set.at("exchange/below"))?;
    fs::write(set.at("exchange/below/file"), "more")?;
    let theirs = |member: Pid| PathBuf::from(format!("/proc/{member}/root{}", set.at("exchange/below/file").display()));
    ensure!(!theirs(members[0]).exists(), "what is private receives mounts");
    set.shared.set(END, 1);
    members.into_iter().try_for_each(expect_success)
}

fn main() -> ExitCode {
    victim::main(run)
}

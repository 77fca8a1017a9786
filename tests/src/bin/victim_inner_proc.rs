//! A /proc that shows a pid namespace inside the container, in a mount namespace apart: its first process and a child, which keep files and
//! directories of it open, and who made both and is in the one only. A part of it is bound onto itself, as sandboxes do, and another
//! file system of the kind hides processes.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_tests::victim::{self, Stage, child, expect_success, suffixed};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, getpid};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Who counts rounds in the shared words of these numbers.
const MAKER: usize = 0;
const FIRST: usize = 1;
const CHILD: usize = 2;
const MEMBERS: usize = 3;
const END: usize = 20;
/// The maker's pid in the container.
const PID: usize = 30;

const NONE: Option<&str> = None;

/// Counts as long as `look` is content.
fn member(shared: &Region, number: usize, mut look: impl FnMut() -> Result<()>) -> Result<()> {
    while shared.get(END) == 0 {
        look()?;
        shared.word(number).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// The processes that a /proc lists.
fn listed(top: &Path) -> Result<Vec<u32>> {
    let mut listed = Vec::new();
    for entry in fs::read_dir(top)? {
        listed.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    listed.sort_unstable();
    Ok(listed)
}

/// What a file that is open says of whom.
fn says(file: &mut File, pid: u32) -> Result<()> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0))?;
    file.read_to_string(&mut text)?;
    ensure!(text.starts_with(&format!("{pid} (")), "a file of process {pid} says {text}");
    Ok(())
}

fn proc(at: &Path, options: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), at, Some("proc"), flags, Some(options)).with_context(|| format!("mounting {}", at.display()))
}

/// Looks at both from inside, as the process of this id there.
fn looks(hiding: &Path) -> Result<()> {
    let own = std::process::id().to_string();
    ensure!(fs::read_link("/proc/self")?.as_os_str() == own.as_str(), "/proc shows another pid namespace");
    ensure!(listed(Path::new("/proc"))? == [1, 2], "/proc lists {:?}", listed(Path::new("/proc"))?);
    ensure!(fs::read_link(hiding.join("self"))?.as_os_str() == own.as_str(), "the other shows another");
    ensure!(!hiding.join("sys").exists(), "the other shows more than processes");
    ensure!(fs::write("/proc/sys/kernel/printk", "").is_err(), "parameters can be written");
    Ok(())
}

fn first(shared: &Region, hiding: &Path) -> Result<()> {
    proc(Path::new("/proc"), "")?;
    proc(hiding, "hidepid=invisible,subset=pid")?;
    mount(Some("/proc/sys"), "/proc/sys", NONE, MsFlags::MS_BIND, NONE)?;
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
    mount(NONE, "/proc/sys", NONE, flags, NONE)?;
    let mut own = File::open("/proc/self/stat")?;
    let other = child(|| {
        chdir("/proc")?;
        let mut parent = File::open("1/stat")?;
        let directory = File::open("/proc")?;
        member(shared, CHILD, || {
            ensure!(Path::new("2/stat").exists() && directory.metadata()?.is_dir(), "its directory is another");
            says(&mut parent, 1)?;
            looks(hiding)
        })
    })?;
    member(shared, FIRST, || {
        says(&mut own, 1)?;
        looks(hiding)
    })?;
    expect_success(other)
}

fn maker(shared: &Region, hiding: &Path) -> Result<()> {
    shared.set(PID, u64::try_from(getpid().as_raw())?);
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).context("unshare")?;
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
    let first = child(|| first(shared, hiding))?;
    victim::wait_until("the first process to begin", || shared.get(FIRST) > 0)?;
    member(shared, MAKER, || {
        ensure!(fs::read_link("/proc/self").is_err(), "who is not in the pid namespace is shown");
        Ok(())
    })?;
    expect_success(first)
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    let hiding = suffixed(stage.path(), "proc");
    fs::create_dir_all(&hiding)?;
    let made = child(|| maker(&shared, &hiding))?;
    victim::wait_until("all to begin", || (0..MEMBERS).all(|member| shared.get(member) > 0))?;
    // Of the file system that is mounted there alone.
    let mut theirs = File::open(format!("/proc/{}/root/proc/1/stat", shared.get(PID)))?;
    loop {
        let then: Vec<u64> = (0..MEMBERS).map(|member| shared.get(member)).collect();
        victim::wait_until("every process to look again", || {
            then.iter().zip(0..).all(|(then, member)| shared.get(member) > *then)
        })?;
        says(&mut theirs, 1)?;
        let own = std::process::id().to_string();
        ensure!(fs::read_link("/proc/self")?.as_os_str() == own.as_str(), "the container's /proc is another");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    shared.set(END, 1);
    expect_success(made)
}

fn main() -> ExitCode {
    victim::main(run)
}

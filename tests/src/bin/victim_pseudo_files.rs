//! Files that the kernel makes up, in the middle of being read: of the program's address space, of a thread of it, of sysfs and of a control
//! group, with its listing. Some are at their end, and what they would say has grown since. Of a control group the listing was read half way.
//!
//! With the argument `left`: the program has left the address space of which it keeps a file open.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage, suffixed};
use nix::dir::Dir;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::gettid;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, IntoRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::Duration;

const NONE: Option<&str> = None;
/// A place in the middle of a listing, where entries stand by what is made of their names, of 31 bits (`kernfs_name_hash`, fs/kernfs/dir.c).
const PLACE: u64 = 1 << 30;
const SYSFS: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
/// Read of each file that is left half way.
const HALF: usize = 60;
/// Those of the address space whose content is the same as long as nothing is mapped, and is longer than that; and one of the network, which
/// is found anew whenever it is looked up.
const STEADY: [&str; 4] = ["maps", "environ", "auxv", "net/dev"];

/// A file of which the beginning was read.
struct Begun {
    name: String,
    file: File,
}

impl Begun {
    fn open(name: &str) -> Result<Self> {
        let mut file = File::open(name).with_context(|| format!("opening {name}"))?;
        file.read_exact(&mut [0; HALF]).with_context(|| format!("reading {name}"))?;
        Ok(Begun { name: name.to_owned(), file })
    }

    /// Reads the rest and comes back.
    fn check(&mut self) -> Result<()> {
        let mut rest = Vec::new();
        self.file.read_to_end(&mut rest)?;
        let now = fs::read(&self.name)?;
        ensure!(now[HALF..] == rest, "{}: what follows is {:?}", self.name, String::from_utf8_lossy(&rest));
        self.file.seek(SeekFrom::Start(HALF as u64))?;
        Ok(())
    }
}

/// A file that was read to its end.
fn read_out(path: &Path) -> Result<File> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    file.read_to_string(&mut String::new())?;
    Ok(file)
}

fn expect_nothing_more(file: &mut File, what: &str) -> Result<()> {
    let mut more = String::new();
    file.read_to_string(&mut more)?;
    ensure!(more.is_empty(), "{what} was at its end, and goes on with {more:?}");
    Ok(())
}

/// What follows in a listing, which is put back.
fn from_there(listing: &mut File) -> Result<Vec<CString>> {
    let mut entries = Dir::from_fd(listing.as_fd().try_clone_to_owned()?)?;
    let names = entries.iter().map(|entry| Ok(entry?.file_name().to_owned()));
    let names = names.collect::<Result<_>>();
    listing.seek(SeekFrom::Start(PLACE))?;
    names
}

/// Opens a file of this address space, and leaves it.
fn leave(stage: &Stage) -> Result<()> {
    // To be had by the next program.
    let _ = open("/proc/self/maps", OFlag::O_RDONLY, Mode::empty())?.into_raw_fd();
    Err(Command::new("/proc/self/exe").arg(stage.path()).exec().into())
}

fn check_thread(stage: &mut Stage, tid: i32) -> Result<()> {
    let own = format!("/proc/self/task/{tid}");
    fs::write(format!("{own}/comm"), "short")?;
    let mut of_thread = File::open(format!("{own}/stat"))?;
    let mut name = read_out(format!("{own}/comm").as_ref())?;
    fs::write(format!("{own}/comm"), "much longer")?;

    let groups = suffixed(stage.path(), "groups");
    fs::create_dir_all(&groups)?;
    mount(Some("groups"), &groups, Some("cgroup2"), MsFlags::empty(), NONE).context("mounting cgroup2")?;
    let depth = groups.join("inner/cgroup.max.depth");
    fs::create_dir(groups.join("inner"))?;
    fs::write(&depth, "7")?;
    let mut group = read_out(&depth)?;
    fs::write(&depth, "1234567")?;
    let mut sysfs = read_out(SYSFS.as_ref())?;
    let mut listing = File::open(&groups)?;
    listing.seek(SeekFrom::Start(PLACE))?;
    let listed = from_there(&mut listing)?;
    ensure!(!listed.is_empty() && listed.len() < fs::read_dir(&groups)?.count(), "{listed:?} is not a part");

    let mut files = Vec::with_capacity(STEADY.len());
    for name in STEADY {
        files.push(Begun::open(&format!("/proc/self/{name}"))?);
    }
    loop {
        files.iter_mut().try_for_each(Begun::check)?;
        of_thread.seek(SeekFrom::Start(0))?;
        let mut stat = String::new();
        of_thread.read_to_string(&mut stat)?;
        ensure!(stat.starts_with(&format!("{tid} (much longer)")), "it is the file of another thread: {stat}");
        ensure!(listing.stream_position()? == PLACE, "the listing stands at {}", listing.stream_position()?);
        ensure!(from_there(&mut listing)? == listed, "the listing goes on elsewhere");
        expect_nothing_more(&mut name, "the name of a thread")?;
        expect_nothing_more(&mut group, "a limit of a control group")?;
        expect_nothing_more(&mut sysfs, SYSFS)?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    group.seek(SeekFrom::Start(0))?;
    let mut limit = String::new();
    group.read_to_string(&mut limit)?;
    ensure!(limit.trim_end() == "1234567", "the limit says {limit:?}");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    if stage.arguments().iter().any(|argument| argument == "left") {
        return leave(stage);
    }
    let (tid, stop) = (AtomicI32::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            tid.store(gettid().as_raw(), Ordering::Relaxed);
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let begun = victim::wait_until("a thread to begin", || tid.load(Ordering::Relaxed) != 0);
        let checked = begun.and_then(|()| check_thread(stage, tid.load(Ordering::Relaxed)));
        stop.store(true, Ordering::Relaxed);
        checked
    })
}

fn main() -> ExitCode {
    victim::main(run)
}

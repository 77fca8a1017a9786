//! fanotify: marks of inodes, mounts and file systems, what they ignore, what waits to be read, who waits for it, who is told what.

use anyhow::{Context, Result, ensure};
use crfs_sys::fanotify::{self, MARK_EVICTABLE, MARK_IGNORE};
use crfs_tests::victim::{self, Stage, child, expect_success, suffixed};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const SURVIVES: u32 = libc::FAN_MARK_IGNORED_SURV_MODIFY;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    mask: u64,
    /// A path where a descriptor came along, the name in its directory otherwise.
    name: Vec<u8>,
    pid: i32,
    /// Whether its process came along as a descriptor.
    process: bool,
}

fn event(mask: u64, name: impl AsRef<Path>) -> Event {
    let name = name.as_ref().as_os_str().as_bytes().to_vec();
    Event { mask, name, pid: std::process::id().cast_signed(), process: false }
}

/// Everything that waits, and once at least whatever comes if the group waits.
fn read(group: &OwnedFd) -> Result<Vec<Event>> {
    let events = match fanotify::read(group.as_fd(), 4096) {
        Err(Errno::EAGAIN) => Vec::new(),
        other => other?,
    };
    let name = |event: &fanotify::Event| match (&event.file, &event.name) {
        (Some(file), _) => fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())),
        (None, name) => Ok(std::ffi::OsStr::from_bytes(name.as_deref().unwrap_or_default()).into()),
    };
    let seen = events.iter().map(|event| {
        let name = name(event)?.as_os_str().as_bytes().to_vec();
        Ok(Event { mask: event.mask, name, pid: event.pid, process: event.process.is_some() })
    });
    seen.collect()
}

/// The events are these. Where a restore came between the first and the reading, the last of these after an overflow.
fn expect(group: &OwnedFd, expected: &[Event]) -> Result<()> {
    let mut events = read(group)?;
    let lost = events.first().is_some_and(|first| first.mask == libc::FAN_Q_OVERFLOW);
    let fits = if lost { expected.ends_with(&events.split_off(1)) } else { events == expected };
    ensure!(fits, "{events:?} came (lost: {lost}) where {expected:?} was expected");
    Ok(())
}

/// Told by descriptors: a file, what is in a directory but for a file in it, and a mount but for a file on it.
struct ByDescriptor {
    group: OwnedFd,
    file: PathBuf,
    directory: PathBuf,
    memory: PathBuf,
}

impl ByDescriptor {
    fn new(directory: &Path, memory: &Path) -> Result<Self> {
        let group = fanotify::create(libc::FAN_NONBLOCK | libc::FAN_CLOEXEC, libc::O_CLOEXEC.cast_unsigned())?;
        let (file, directory) = (directory.join("file"), directory.join("directory"));
        fs::create_dir(&directory)?;
        for path in
            [&file, &directory.join("loud"), &directory.join("quiet"), &memory.join("read"), &memory.join("quiet")]
        {
            fs::write(path, "1")?;
        }
        let mark = |flags, mask, path: &Path| fanotify::add_mark(group.as_fd(), flags, mask, path);
        mark(0, libc::FAN_MODIFY, &file)?;
        mark(0, libc::FAN_CLOSE_WRITE | libc::FAN_EVENT_ON_CHILD, &directory)?;
        mark(libc::FAN_MARK_IGNORED_MASK | SURVIVES, libc::FAN_CLOSE_WRITE, &directory.join("quiet"))?;
        mark(libc::FAN_MARK_MOUNT, libc::FAN_ACCESS, memory)?;
        mark(MARK_IGNORE | SURVIVES, libc::FAN_ACCESS, &memory.join("quiet"))?;
        Ok(ByDescriptor { group, file, directory, memory: memory.to_owned() })
    }

    fn round(&self) -> Result<()> {
        fs::write(&self.file, "2")?;
        expect(&self.group, &[event(libc::FAN_MODIFY, &self.file)])?;
        for name in ["quiet", "loud"] {
            fs::write(self.directory.join(name), "2")?;
        }
        expect(&self.group, &[event(libc::FAN_CLOSE_WRITE, self.directory.join("loud"))])?;
        for name in ["quiet", "read"] {
            fs::read(self.memory.join(name))?;
        }
        expect(&self.group, &[event(libc::FAN_ACCESS, self.memory.join("read"))])
    }
}

const NAMED: [&str; 2] = ["quiet directory/quiet", "loud"];

/// Told by names: a file system but for one directory.
struct ByName {
    group: OwnedFd,
    memory: PathBuf,
}

impl ByName {
    fn new(memory: &Path) -> Result<Self> {
        let flags = libc::FAN_REPORT_DFID_NAME | libc::FAN_REPORT_FID | libc::FAN_NONBLOCK;
        let group = fanotify::create(flags, 0)?;
        let quiet = memory.join("quiet directory");
        fs::create_dir(&quiet)?;
        for name in NAMED {
            fs::write(memory.join(name), "")?;
        }
        let mark = |flags, mask, path: &Path| fanotify::add_mark(group.as_fd(), flags, mask, path);
        mark(libc::FAN_MARK_FILESYSTEM, libc::FAN_ATTRIB, memory)?;
        mark(MARK_IGNORE | SURVIVES | MARK_EVICTABLE, libc::FAN_ATTRIB | libc::FAN_EVENT_ON_CHILD, &quiet)?;
        Ok(ByName { group, memory: memory.to_owned() })
    }

    fn round(&self) -> Result<()> {
        for name in NAMED {
            let path = self.memory.join(name);
            fs::set_permissions(&path, fs::metadata(&path)?.permissions())?;
        }
        expect(&self.group, &[event(libc::FAN_ATTRIB, "loud")])
    }
}

/// Made without privileges: it is not told who else did something.
struct Unprivileged {
    group: OwnedFd,
    file: PathBuf,
}

impl Unprivileged {
    fn new(directory: &Path) -> Result<Self> {
        let group = fanotify::create_unprivileged(libc::FAN_REPORT_FID | libc::FAN_NONBLOCK, 0)?;
        let file = directory.join("of others");
        fs::write(&file, "1")?;
        fanotify::add_mark(group.as_fd(), 0, libc::FAN_CLOSE_WRITE, &file)?;
        Ok(Unprivileged { group, file })
    }

    fn round(&self) -> Result<()> {
        fs::write(&self.file, "2")?;
        expect(&self.group, &[event(libc::FAN_CLOSE_WRITE, "")])
    }

    fn end(&self) -> Result<()> {
        expect_success(child(|| Ok(fs::write(&self.file, "3")?))?)?;
        expect(&self.group, &[Event { pid: 0, ..event(libc::FAN_CLOSE_WRITE, "") }])
    }
}

/// One that nobody reads.
struct Unread {
    group: OwnedFd,
    file: PathBuf,
}

impl Unread {
    fn new(directory: &Path) -> Result<Self> {
        let (group, file) = (fanotify::create(0, 0)?, directory.join("unread"));
        fs::write(&file, "1")?;
        fanotify::add_mark(group.as_fd(), 0, libc::FAN_CLOSE_WRITE, &file)?;
        fs::write(&file, "2")?;
        Ok(Unread { group, file })
    }

    fn round(&self) -> Result<()> {
        let queued = fanotify::queued(self.group.as_fd())?;
        ensure!(queued == 1, "{queued} events wait");
        Ok(())
    }

    fn end(&self) -> Result<()> {
        expect(&self.group, &[event(libc::FAN_CLOSE_WRITE, &self.file)])?;
        fs::write(&self.file, "3")?;
        expect(&self.group, &[event(libc::FAN_CLOSE_WRITE, &self.file)])
    }
}

/// Without limits, of the class of those that look into files, and told of processes. Nothing happens before the end to what it watches: a
/// queue without limit is not carried.
struct Unlimited {
    group: OwnedFd,
    file: PathBuf,
}

impl Unlimited {
    fn new(directory: &Path) -> Result<Self> {
        let limits = libc::FAN_UNLIMITED_QUEUE | libc::FAN_UNLIMITED_MARKS;
        let group = fanotify::create(libc::FAN_CLASS_CONTENT | limits | libc::FAN_REPORT_PIDFD, 0)?;
        let file = directory.join("unlimited");
        fs::write(&file, "1")?;
        // What is ignored no more after a write, and with it the mark: what a record may leave out.
        let (cleared, ignored) = (directory.join("cleared"), libc::FAN_MARK_IGNORED_MASK);
        fs::write(&cleared, "1")?;
        fanotify::add_mark(group.as_fd(), ignored, libc::FAN_OPEN, &cleared)?;
        fs::write(&cleared, "2")?;
        fanotify::add_mark(group.as_fd(), 0, libc::FAN_OPEN | libc::FAN_CLOSE_NOWRITE, &file)?;
        fanotify::add_mark(group.as_fd(), ignored, libc::FAN_CLOSE_NOWRITE, &file)?;
        Ok(Unlimited { group, file })
    }

    fn end(&self) -> Result<()> {
        fs::read(&self.file)?;
        expect(&self.group, &[Event { process: true, ..event(libc::FAN_OPEN, &self.file) }])
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let (directory, memory) = (suffixed(stage.path(), "watched"), suffixed(stage.path(), "memory"));
    fs::create_dir(&directory)?;
    fs::create_dir(&memory)?;
    mount(Some("memory"), &memory, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let by_descriptor = ByDescriptor::new(&directory, &memory)?;
    let by_name = ByName::new(&memory)?;
    let unprivileged = Unprivileged::new(&directory)?;
    let unread = Unread::new(&directory)?;
    let unlimited = Unlimited::new(&directory)?;
    // What was made for one may be told to another.
    for group in [&by_descriptor.group, &by_name.group] {
        read(group)?;
    }
    let once = directory.join("once");
    fs::write(&once, "")?;
    let waiting = fanotify::create(0, 0)?;
    fanotify::add_mark(waiting.as_fd(), 0, libc::FAN_CLOSE_WRITE, &once)?;
    let waiting = std::thread::spawn(move || read(&waiting));
    loop {
        by_descriptor.round()?;
        by_name.round()?;
        unprivileged.round()?;
        unread.round()?;
        ensure!(!waiting.is_finished(), "who waits for an event goes on without one");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    unread.end()?;
    unlimited.end()?;
    unprivileged.end()?;
    fs::write(&once, "1")?;
    let events = waiting.join().ok().context("who waits for an event panicked")??;
    let expected = event(libc::FAN_CLOSE_WRITE, &once);
    ensure!(events == [expected], "{events:?} came for who waits");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! inotify: watches with their numbers, what waits to be read, who waits for it.

use anyhow::{Context, Result, ensure};
use crfs_sys::inotify::{self, EVENT_SIZE};
use crfs_tests::victim::{self, Stage, suffixed};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Event {
    wd: i32,
    mask: u32,
    name: String,
}

fn event(wd: i32, mask: u32, name: &str) -> Event {
    Event { wd, mask, name: name.to_owned() }
}

/// What stands for events that a restore has lost.
fn overflow() -> Event {
    event(-1, libc::IN_Q_OVERFLOW, "")
}

/// Everything that waits, and once at least whatever comes if the instance waits.
fn read(instance: &OwnedFd) -> Result<Vec<Event>> {
    let mut buffer = [0; 4096];
    let length = match nix::unistd::read(instance, &mut buffer) {
        Err(Errno::EAGAIN) => 0,
        other => other?,
    };
    let mut rest = &buffer[..length];
    let mut events = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let (wd, mask, length) = (word(0).cast_signed(), word(4), word(12) as usize);
        let (name, next) = rest[EVENT_SIZE..].split_at(length);
        events.push(event(wd, mask, String::from_utf8_lossy(name).trim_end_matches('\0')));
        rest = next;
    }
    Ok(events)
}

/// The events are these. Where a restore came between the first and the reading, the last of these after an overflow.
fn expect(instance: &OwnedFd, expected: &[Event]) -> Result<()> {
    let mut events = read(instance)?;
    let lost = events.first() == Some(&overflow());
    let fits = if lost { expected.ends_with(&events.split_off(1)) } else { events == expected };
    ensure!(fits, "{events:?} came (lost: {lost}) where {expected:?} was expected");
    Ok(())
}

struct Watched {
    instance: OwnedFd,
    directory: (i32, PathBuf),
    file: (i32, PathBuf),
    last: i32,
}

impl Watched {
    fn new(directory: &Path) -> Result<Self> {
        let instance = inotify::create()?;
        fcntl(&instance, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let file = directory.join("file");
        fs::write(&file, "1")?;
        // Not the numbers that a new instance would give.
        inotify::set_next_wd(instance.as_fd(), 5)?;
        let mask = libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVE | libc::IN_EXCL_UNLINK;
        let on_directory = inotify::add_watch(instance.as_fd(), directory, mask)?;
        let between = inotify::add_watch(instance.as_fd(), Path::new("/"), libc::IN_MOVE_SELF)?;
        let on_file = inotify::add_watch(instance.as_fd(), &file, libc::IN_MODIFY | libc::IN_CLOSE_WRITE)?;
        inotify::remove_watch(instance.as_fd(), between)?;
        ensure!((on_directory, between, on_file) == (5, 6, 7), "the numbers: {on_directory} {between} {on_file}");
        expect(&instance, &[event(between, libc::IN_IGNORED, "")])?;
        let directory = (on_directory, directory.to_owned());
        Ok(Watched { instance, directory, file: (on_file, file), last: on_file })
    }

    fn round(&mut self) -> Result<()> {
        let (wd, directory) = &self.directory;
        fs::write(directory.join("new"), "")?;
        fs::remove_file(directory.join("new"))?;
        expect(&self.instance, &[event(*wd, libc::IN_CREATE, "new"), event(*wd, libc::IN_DELETE, "new")])?;
        let (wd, file) = &self.file;
        fs::write(file, "2")?;
        // Cut to nothing, then written: the same twice is told once.
        expect(&self.instance, &[event(*wd, libc::IN_MODIFY, ""), event(*wd, libc::IN_CLOSE_WRITE, "")])?;
        let next = inotify::add_watch(self.instance.as_fd(), Path::new("/"), libc::IN_MOVE_SELF)?;
        inotify::remove_watch(self.instance.as_fd(), next)?;
        expect(&self.instance, &[event(next, libc::IN_IGNORED, "")])?;
        ensure!(next == self.last + 1, "the watch after {} is {next}", self.last);
        self.last = next;
        Ok(())
    }
}

/// One that nobody reads, which watches a symbolic link.
struct Unread {
    instance: OwnedFd,
    link: PathBuf,
    wd: i32,
}

impl Unread {
    fn new(directory: &Path) -> Result<Self> {
        let (instance, link) = (inotify::create()?, directory.join("link"));
        std::os::unix::fs::symlink("nowhere", &link)?;
        let mask = libc::IN_ATTRIB | libc::IN_DELETE_SELF | libc::IN_DONT_FOLLOW;
        let wd = inotify::add_watch(instance.as_fd(), &link, mask)?;
        fs::hard_link(&link, directory.join("other"))?;
        Ok(Unread { instance, link, wd })
    }

    fn round(&self) -> Result<()> {
        let queued = inotify::queued(self.instance.as_fd())?;
        ensure!(queued == EVENT_SIZE, "{queued} bytes of events wait");
        Ok(())
    }

    fn end(&self) -> Result<()> {
        expect(&self.instance, &[event(self.wd, libc::IN_ATTRIB, "")])?;
        fs::remove_file(&self.link)?;
        expect(&self.instance, &[event(self.wd, libc::IN_ATTRIB, "")])
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let directory = suffixed(stage.path(), "watched");
    fs::create_dir(&directory)?;
    let mut watched = Watched::new(&directory)?;
    let unread = Unread::new(&directory)?;
    expect(&watched.instance, &["link", "other"].map(|name| event(watched.directory.0, libc::IN_CREATE, name)))?;
    let once = directory.join("once");
    fs::write(&once, "")?;
    expect(&watched.instance, &[event(watched.directory.0, libc::IN_CREATE, "once")])?;
    let waiting = inotify::create()?;
    let wd = inotify::add_watch(waiting.as_fd(), &once, libc::IN_CLOSE_WRITE | libc::IN_ONESHOT)?;
    let (runs, is_running) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        runs.send(())?;
        read(&waiting)
    });
    // What a thread is registered for when it begins must not be missing at the first freeze.
    is_running.recv()?;
    loop {
        watched.round()?;
        unread.round()?;
        ensure!(!waiting.is_finished(), "who waits for an event goes on without one");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    unread.end()?;
    fs::write(&once, "1")?;
    let events = waiting.join().ok().context("who waits for an event panicked")??;
    let expected = event(wd, libc::IN_CLOSE_WRITE, "");
    ensure!(events.first() == Some(&expected), "{events:?} came for who waits");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

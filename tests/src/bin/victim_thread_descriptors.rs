//! Threads with descriptors of their own (unshare(2)), beside one that has the process's: other files under one number, and a pipe,
//! an epoll instance, a deleted file and a lock that only one of them has.

use anyhow::{Context, Result, ensure};
use crfs_sys::fds::is_open;
use crfs_sys::owner::{self, F_OWNER_PID};
use crfs_tests::victim::{self, Stage};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::{pipe, read, write};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

/// What the threads and the process tell each other.
#[derive(Default)]
struct Board {
    /// How many threads have what they are to have.
    ready: AtomicU64,
    /// A descriptor of the process, high above those of anybody else.
    shared: AtomicI32,
    stop: AtomicBool,
    /// How often each thread has checked itself.
    checked: [AtomicU64; 3],
}

/// What a thread has open in its own table.
struct Own {
    which: usize,
    file: File,
    deleted: File,
    pipe: (OwnedFd, OwnedFd),
    epoll: Epoll,
}

fn path(progress: &Path, which: usize) -> PathBuf {
    victim::suffixed(progress, &format!("file{which}"))
}

fn content(which: usize) -> String {
    format!("what {which} has under this number")
}

fn make(path: &Path, which: usize) -> Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.write_all_at(content(which).as_bytes(), 0)?;
    Ok(file)
}

fn expect_content(file: &File, which: usize) -> Result<()> {
    let mut bytes = vec![0; content(which).len()];
    file.read_exact_at(&mut bytes, 0).with_context(|| format!("reading the file of {which}"))?;
    ensure!(bytes == content(which).as_bytes(), "{which} reads {:?}", String::from_utf8_lossy(&bytes));
    Ok(())
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

impl Own {
    fn new(progress: &Path, which: usize) -> Result<Own> {
        let file = make(&path(progress, which), which)?;
        fcntl(&file, FcntlArg::F_SETLK(&whole_file())).context("locking")?;
        let gone = victim::suffixed(progress, &format!("deleted{which}"));
        let deleted = make(&gone, which)?;
        fs::remove_file(&gone)?;
        let pipe = pipe()?;
        owner::set(pipe.0.as_fd(), F_OWNER_PID, std::process::id().cast_signed())?;
        let epoll = Epoll::new(EpollCreateFlags::empty())?;
        epoll.add(&pipe.0, EpollEvent::new(EpollFlags::EPOLLIN, which as u64))?;
        write(&pipe.1, &[0])?;
        Ok(Own { which, file, deleted, pipe, epoll })
    }

    fn check(&self, round: u8, board: &Board) -> Result<()> {
        expect_content(&self.file, self.which)?;
        expect_content(&self.deleted, self.which)?;
        let owner = owner::get(self.pipe.0.as_fd())?;
        ensure!(owner.id == std::process::id().cast_signed(), "the pipe signals {}", owner.id);
        let mut events = [EpollEvent::empty()];
        ensure!(self.epoll.wait(&mut events, EpollTimeout::ZERO)? == 1, "no event of the pipe");
        ensure!(events[0].data() == self.which as u64, "an event of {}", events[0].data());
        let mut byte = [0];
        ensure!(read(&self.pipe.0, &mut byte)? == 1 && byte[0] == round, "the pipe gives {}", byte[0]);
        write(&self.pipe.1, &[round.wrapping_add(1)])?;
        ensure!(!is_open(board.shared.load(Ordering::SeqCst)), "{} has a descriptor of its process", self.which);
        Ok(())
    }
}

/// A thread that checks itself until it is told to stop; all but the first have descriptors of their own.
fn thread(progress: &Path, which: usize, board: &Board) -> Result<()> {
    let own = if which == 0 {
        None
    } else {
        unshare(CloneFlags::CLONE_FILES)?;
        Some(Own::new(progress, which)?)
    };
    board.ready.fetch_add(1, Ordering::SeqCst);
    let mut round = 0u8;
    while !board.stop.load(Ordering::SeqCst) {
        match (&own, board.shared.load(Ordering::SeqCst)) {
            (_, 0) => {}
            (Some(own), _) => {
                own.check(round, board)?;
                round = round.wrapping_add(1);
            }
            (None, shared) => ensure!(is_open(shared), "a thread has no descriptor {shared}, which its process has"),
        }
        board.checked[which].fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Whether somebody else holds a lock on a thread's file.
fn is_locked(progress: &Path, which: usize) -> Result<bool> {
    let mut asked = whole_file();
    let file = File::options().read(true).write(true).open(path(progress, which))?;
    fcntl(&file, FcntlArg::F_GETLK(&mut asked))?;
    Ok(i32::from(asked.l_type) != libc::F_UNLCK)
}

fn run(stage: &mut Stage) -> Result<()> {
    let progress = stage.path().to_owned();
    let board = Arc::new(Board::default());
    let threads = [0, 1, 2].map(|which| {
        let (progress, board) = (progress.clone(), Arc::clone(&board));
        std::thread::spawn(move || thread(&progress, which, &board))
    });
    let any_ended = || threads.iter().any(std::thread::JoinHandle::is_finished);
    victim::wait_until("the threads", || board.ready.load(Ordering::SeqCst) == 3 || any_ended())?;
    // Under the number that their files have in the others' tables.
    let own = make(&path(&progress, 0), 0)?;
    let high: RawFd = fcntl(&own, FcntlArg::F_DUPFD_CLOEXEC(200))?;
    board.shared.store(high, Ordering::SeqCst);
    while !any_ended() {
        for checked in &board.checked {
            let before = checked.load(Ordering::SeqCst);
            victim::wait_until("a thread to check itself", || any_ended() || checked.load(Ordering::SeqCst) > before)?;
        }
        expect_content(&own, 0)?;
        ensure!(own.as_raw_fd() < high && is_open(high), "descriptor {high} is closed");
        for which in [1, 2] {
            ensure!(any_ended() || is_locked(&progress, which)?, "the lock of thread {which} is gone");
        }
        if !stage.end_round()? {
            break;
        }
    }
    board.stop.store(true, Ordering::SeqCst);
    for thread in threads {
        thread.join().ok().context("a thread panicked")??;
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

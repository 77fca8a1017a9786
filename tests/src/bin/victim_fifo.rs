//! FIFOs: with data, one side only, several descriptions, readers that have and have not met a writer, and a thread that waits in open(2).

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage, suffixed, wait_until};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const CAPACITY: i32 = 128 << 10;

fn make(stage: &Stage, name: &str) -> Result<PathBuf> {
    let path = suffixed(stage.path(), name);
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    Ok(path)
}

fn open(path: &Path, read: bool, write: bool) -> Result<File> {
    Ok(File::options().read(read).write(write).custom_flags(libc::O_NONBLOCK).open(path)?)
}

fn hung_up(file: &File) -> Result<bool> {
    let mut asked = [PollFd::new(file.as_fd(), PollFlags::empty())];
    poll(&mut asked, PollTimeout::ZERO)?;
    Ok(asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}

fn take(mut file: &File, expected: &[u8]) -> Result<()> {
    let mut found = vec![0; expected.len()];
    file.read_exact(&mut found)?;
    ensure!(found == expected, "read {found:?} in place of {expected:?}");
    Ok(())
}

/// Nothing to read, though somebody may yet write.
fn is_empty(mut file: &File) -> bool {
    file.read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

fn run(stage: &mut Stage) -> Result<()> {
    // A stream through three descriptions; a fourth one waits for data and does not do so without blocking.
    let path = make(stage, "stream")?;
    let reader = open(&path, true, false)?;
    let other = open(&path, true, false)?;
    let mut writer = open(&path, false, true)?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(CAPACITY))?;
    fcntl(&other, FcntlArg::F_SETFL(OFlag::empty()))?;
    writer.write_all(&[7; 70_000])?;
    // Both ways.
    let mut both = open(&make(stage, "both")?, true, true)?;
    // Readers alone: one has met no writer yet, one has, and data is left.
    let silent = open(&make(stage, "silent")?, true, false)?;
    let path = make(stage, "left")?;
    let left = open(&path, true, false)?;
    open(&path, false, true)?.write_all(b"left behind")?;
    let late = open(&path, true, false)?;
    // A writer alone, with data.
    let unread = make(stage, "unread")?;
    let reading = open(&unread, true, false)?;
    let mut alone = open(&unread, false, true)?;
    alone.write_all(b"unread")?;
    drop(reading);
    // Whoever opens one side waits for the other.
    let path = make(stage, "opened")?;
    let opening = path.clone();
    let opener = std::thread::spawn(move || -> std::io::Result<Vec<u8>> { std::fs::read(opening) });

    loop {
        writer.write_all(b"seven 7")?;
        let mut bytes = [0; 7];
        (&reader).read_exact(&mut bytes)?;
        let expected = if stage.round() < 10_000 { [7; 7] } else { *b"seven 7" };
        ensure!(bytes == expected, "the stream gave {bytes:?}");
        ensure!(fcntl(&reader, FcntlArg::F_GETPIPE_SZ)? == CAPACITY, "the capacity changed");
        let flags = |file: &File| fcntl(file, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
        ensure!(flags(&reader)?.contains(OFlag::O_NONBLOCK), "O_NONBLOCK is gone");
        ensure!(!flags(&other)?.contains(OFlag::O_NONBLOCK), "O_NONBLOCK has come");
        both.write_all(b"to myself")?;
        take(&both, b"to myself")?;
        ensure!(is_empty(&both), "more than was written");
        ensure!((&silent).read(&mut bytes)? == 0 && !hung_up(&silent)?, "the reader alone was told of a writer");
        ensure!(hung_up(&left)? && !hung_up(&late)?, "the readers that are left were told otherwise");
        ensure!(!opener.is_finished(), "the thread did not wait in open");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    take(&left, b"left behind")?;
    ensure!((&late).read(&mut [0; 1])? == 0, "no end of the data");
    ensure!(alone.write(b"x").is_err_and(|error| error.kind() == ErrorKind::BrokenPipe), "nobody reads it");
    take(&open(&unread, true, false)?, b"unread")?;
    let mut found = None;
    wait_until("the thread in open", || {
        found = open(&path, false, true).ok();
        found.is_some()
    })?;
    found.take().map_or(Ok(()), |mut file| file.write_all(b"at last"))?;
    let read = opener.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    ensure!(read == b"at last", "the thread read {read:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

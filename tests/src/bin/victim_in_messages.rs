//! What only a message holds, sent by a program that has closed it since: both ends of a FIFO with a word between them, an inotify
//! instance, a sealed memfd, and a deleted file that was read half way.

use anyhow::{Context, Result, ensure};
use crfs_sys::inotify;
use crfs_sys::socket_queue::{peek, send};
use crfs_tests::victim::{self, Stage, suffixed};
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::ExitCode;

const MASK: u32 = libc::IN_MODIFY;
/// Room for a few events without names.
const EVENTS: usize = 256;

struct Post {
    near: UnixDatagram,
    far: UnixDatagram,
}

impl Post {
    fn send(&self, word: &str, files: &[BorrowedFd<'_>]) -> Result<()> {
        send(self.near.as_fd(), word.as_bytes(), files, None, &[])?;
        Ok(())
    }

    /// The next message. Looked at first, which also gives what it carries.
    fn take(&self, word: &str, count: usize) -> Result<Vec<OwnedFd>> {
        let message = peek(self.far.as_fd(), 16)?;
        ensure!(message.data == word.as_bytes(), "{:?} came for {word:?}", message.data);
        recv(self.far.as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT)?;
        ensure!(message.files.len() == count, "{word:?} carries {} descriptors", message.files.len());
        Ok(message.files)
    }
}

fn fifo(post: &Post, path: &Path) -> Result<()> {
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let reader = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    let mut writer = File::options().write(true).open(path)?;
    writer.write_all(b"word")?;
    post.send("fifo", &[reader.as_fd(), writer.as_fd()])
}

fn check_fifo(post: &Post) -> Result<()> {
    let mut ends = post.take("fifo", 2)?.into_iter().map(File::from);
    let (mut reader, mut writer) = (ends.next().context("a reader")?, ends.next().context("a writer")?);
    let mut word = [0; 8];
    let length = reader.read(&mut word)?;
    ensure!(&word[..length] == b"word", "the FIFO holds {:?}", &word[..length]);
    writer.write_all(b"word")?;
    post.send("fifo", &[reader.as_fd(), writer.as_fd()])
}

fn watch(post: &Post, watched: &Path) -> Result<()> {
    fs::write(watched, "")?;
    let instance = inotify::create()?;
    fcntl(&instance, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    inotify::set_next_wd(instance.as_fd(), 7)?;
    let wd = inotify::add_watch(instance.as_fd(), watched, MASK)?;
    ensure!(wd == 7, "the watch is {wd}");
    post.send("watch", &[instance.as_fd()])
}

fn check_watch(post: &Post, watched: &Path) -> Result<()> {
    let instance = post.take("watch", 1)?.pop().context("an instance")?;
    File::options().append(true).open(watched)?.write_all(b"x")?;
    let mut events = [0; EVENTS];
    let length = nix::unistd::read(&instance, &mut events)?;
    let word = |at: usize| u32::from_ne_bytes([events[at], events[at + 1], events[at + 2], events[at + 3]]);
    // What a restore has lost is told by an overflow.
    let told = (word(0).cast_signed(), word(4));
    ensure!(told == (7, MASK) || told == (-1, libc::IN_Q_OVERFLOW), "{told:?} came, with {length} bytes");
    post.send("watch", &[instance.as_fd()])
}

fn memory(post: &Post) -> Result<()> {
    let memory = File::from(memfd_create(c"sealed", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    memory.write_all_at(b"pages", 8000)?;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE))?;
    post.send("memory", &[memory.as_fd()])
}

fn check_memory(post: &Post) -> Result<()> {
    let memory = File::from(post.take("memory", 1)?.pop().context("a memfd")?);
    let mut text = vec![1; 8005];
    memory.read_exact_at(&mut text, 0)?;
    ensure!(text[..8000].iter().all(|&byte| byte == 0) && &text[8000..] == b"pages", "the memfd holds something else");
    let seals = fcntl(&memory, FcntlArg::F_GET_SEALS)?;
    ensure!(seals == SealFlag::F_SEAL_WRITE.bits(), "the seals are {seals:#x}");
    post.send("memory", &[memory.as_fd()])
}

fn deleted(post: &Post, path: &Path) -> Result<()> {
    fs::write(path, "half and half")?;
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(5))?;
    fs::remove_file(path)?;
    post.send("deleted", &[file.as_fd()])
}

fn check_deleted(post: &Post) -> Result<()> {
    let mut file = File::from(post.take("deleted", 1)?.pop().context("a file")?);
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    file.seek(SeekFrom::Start(5))?;
    ensure!(text == "and half", "the deleted file goes on with {text:?}");
    post.send("deleted", &[file.as_fd()])
}

fn run(stage: &mut Stage) -> Result<()> {
    let (near, far) = UnixDatagram::pair()?;
    let post = Post { near, far };
    let watched = suffixed(stage.path(), "watched");
    fifo(&post, &suffixed(stage.path(), "fifo"))?;
    watch(&post, &watched)?;
    memory(&post)?;
    deleted(&post, &suffixed(stage.path(), "deleted"))?;
    loop {
        check_fifo(&post)?;
        check_watch(&post, &watched)?;
        check_memory(&post)?;
        check_deleted(&post)?;
        if !stage.end_round_and_rest()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Descriptors that are mere places (O_PATH): a file, a directory, a symbolic link, a FIFO, a socket, a device.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage, suffixed};
use nix::fcntl::{FcntlArg, OFlag, fcntl, readlinkat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::mkfifo;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

fn place(path: &Path) -> Result<File> {
    Ok(File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?)
}

fn run(stage: &mut Stage) -> Result<()> {
    let path = |name| suffixed(stage.path(), name);
    let (plain, directory, link, fifo, socket) =
        (path("plain"), path("dir"), path("link"), path("fifo"), path("socket"));
    fs::write(&plain, "plain")?;
    fs::create_dir(&directory)?;
    fs::write(directory.join("inside"), "inside")?;
    std::os::unix::fs::symlink("nowhere at all", &link)?;
    mkfifo(&fifo, Mode::S_IRWXU)?;
    drop(UnixListener::bind(&socket)?);
    let places = [
        (place(&plain)?, libc::S_IFREG),
        (place(&directory)?, libc::S_IFDIR),
        (place(&link)?, libc::S_IFLNK),
        (place(&fifo)?, libc::S_IFIFO),
        (place(&socket)?, libc::S_IFSOCK),
        (place("/dev/null".as_ref())?, libc::S_IFCHR),
    ];
    loop {
        for (place, kind) in &places {
            let found = fstat(place)?.st_mode & libc::S_IFMT;
            ensure!(found == *kind, "file type {found:#o} in place of {kind:#o}");
            let flags = OFlag::from_bits_truncate(fcntl(place, FcntlArg::F_GETFL)?);
            ensure!(flags.contains(OFlag::O_PATH | OFlag::O_NOFOLLOW), "{kind:#o}: its flags are {flags:?}");
        }
        let through = |number: usize| format!("/proc/self/fd/{}", places[number].0.as_raw_fd());
        ensure!(fs::read_to_string(through(0))? == "plain", "the file is another");
        ensure!(fs::read_to_string(format!("{}/inside", through(1)))? == "inside", "the directory is another");
        let target = readlinkat(places[2].0.as_fd(), "")?;
        ensure!(target == "nowhere at all", "the link leads to {target:?}");
        if !stage.end_round_and_rest()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

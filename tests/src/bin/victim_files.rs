//! Regular files, a directory and devices: offsets, flags, descriptions shared by descriptors and by processes.

use anyhow::{Context, Result, ensure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage, suffixed};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;
use std::time::Duration;

fn run(stage: &mut Stage) -> Result<()> {
    let data = suffixed(stage.path(), "data");
    let log = suffixed(stage.path(), "log");
    fs::write(&data, (0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>())?;
    let mut reader = File::open(&data)?;
    let mut shared = reader.try_clone()?;
    fcntl(&shared, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let mut appended = OpenOptions::new().create(true).append(true).open(&log)?;
    let directory = File::open(stage.path().parent().context("a path with a parent")?)?;
    let mut null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let mut zero = File::open("/dev/zero")?;
    let mut random = File::open("/dev/urandom")?;
    // A child that holds the same descriptions and does nothing but wait for its end.
    let child = match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => {
            let parent = nix::unistd::getppid();
            while nix::unistd::getppid() == parent {
                std::thread::sleep(Duration::from_millis(20));
            }
            exit_now(0)
        }
        Forked::Parent { child, .. } => child,
    };
    let mut lines = 0u64;
    loop {
        let mut word = [0; 4];
        let position = (stage.round() % 50_000) * 8;
        ensure!(reader.stream_position()? == position, "the offset is {}", reader.stream_position()?);
        reader.read_exact(&mut word)?;
        ensure!(u64::from(u32::from_le_bytes(word)) * 4 == position, "the wrong word at {position}");
        shared.read_exact(&mut word)?;
        ensure!(u64::from(u32::from_le_bytes(word)) * 4 == position + 4, "the offset is not shared");
        if position + 8 == 400_000 {
            reader.seek(SeekFrom::Start(0))?;
        }
        writeln!(appended, "line {lines}")?;
        lines += 1;
        let append = OFlag::from_bits_truncate(fcntl(&appended, FcntlArg::F_GETFL)?);
        ensure!(append.contains(OFlag::O_APPEND | OFlag::O_WRONLY), "the log's flags are {append:?}");
        ensure!(cloexec(&reader)? && !cloexec(&shared)?, "close-on-exec is wrong");
        ensure!(
            fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))?.count() > 0,
            "the directory is empty"
        );
        null.write_all(b"nothing")?;
        ensure!(null.read(&mut word)? == 0, "/dev/null has content");
        zero.read_exact(&mut word)?;
        ensure!(word == [0; 4], "/dev/zero has content");
        random.read_exact(&mut word)?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    kill(child, Signal::SIGKILL)?;
    nix::sys::wait::waitpid(child, None)?;
    let expected: String = (0..lines).map(|n| format!("line {n}\n")).collect();
    ensure!(fs::read_to_string(&log)? == expected, "the log lost or doubled a line");
    Ok(())
}

fn cloexec(file: impl AsFd) -> Result<bool> {
    Ok(FdFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GETFD)?).contains(FdFlag::FD_CLOEXEC))
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Files in memory: parent and child hand a number to and fro through the mapping of one; another is sealed against all writing.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::Region;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

const SIZE: usize = 1 << 20;
/// Word that carries the number: even for the child, odd for the parent.
const BALL: usize = 70_000;
const STOP: usize = 5;
const TEXT: &[u8] = b"never to be changed";

fn run(stage: &mut Stage) -> Result<()> {
    let file = File::from(memfd_create("ball game", MFdFlags::MFD_CLOEXEC)?);
    // Holes, and an end inside a page.
    file.set_len(SIZE as u64 * 3 + 17)?;
    let memory = Region::of_file(file.as_fd(), SIZE)?;
    let sealed = File::from(memfd_create("sealed", MFdFlags::MFD_ALLOW_SEALING)?);
    sealed.write_all_at(TEXT, 0)?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&sealed, FcntlArg::F_ADD_SEALS(seals))?;
    let again = File::open(format!("/proc/self/fd/{}", sealed.as_raw_fd()))?;
    let child = match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => child,
        Forked::Child => {
            victim::return_the_ball(&memory, BALL, STOP);
            exit_now(0)
        }
    };
    let mut ball = 0;
    loop {
        victim::wait_until("the child's answer", || memory.get(BALL) % 2 == 1)?;
        ensure!(memory.get(BALL) == ball + 1, "the number is {} after {ball}", memory.get(BALL));
        let mut read = [0; 8];
        file.read_exact_at(&mut read, BALL as u64 * 8)?;
        ensure!(u64::from_ne_bytes(read) == ball + 1, "mapping and descriptor are of two files");
        ball += 2;
        memory.set(BALL, ball);
        if !stage.end_round()? {
            break;
        }
    }
    memory.set(STOP, 1);
    ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "the child failed");
    ensure!(file.metadata()?.len() == SIZE as u64 * 3 + 17, "its size is another");
    let name = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    ensure!(name.to_string_lossy() == "/memfd:ball game (deleted)", "its name is {}", name.display());
    let mut read = vec![0; TEXT.len()];
    again.read_exact_at(&mut read, 0)?;
    ensure!(read == TEXT, "the sealed content");
    let found = fcntl(&sealed, FcntlArg::F_GET_SEALS)?;
    ensure!(found == seals.bits(), "the seals are {found:#x}");
    let refused = sealed.write_at(b"x", 0).map_err(|error| error.raw_os_error());
    ensure!(refused == Err(Some(Errno::EPERM as i32)), "it can be written: {refused:?}");
    let unsealed = fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW));
    ensure!(unsealed == Err(Errno::EPERM), "the first can be sealed: {unsealed:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

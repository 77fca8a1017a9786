//! Files in memory of huge pages: one that parent and child write through mappings, one that is sealed, and one that is only mapped.

use anyhow::{Result, ensure};
use crfs_sys::anonymous::Region;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::wait::{WaitStatus, waitpid};
use std::ffi::CStr;
use std::fs::{File, read_link, read_to_string};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::ExitCode;

/// Bytes and words of a huge page.
const BYTES: usize = 2 << 20;
const WORDS: usize = BYTES / 8;
const PAGES: usize = 4;
/// The page that nobody touches, and the last word of all.
const UNTOUCHED: usize = 1;
const LAST: usize = PAGES * WORDS - 1;
/// Word that carries the number, inside the third page: even for the child, odd for the parent.
const BALL: usize = 2 * WORDS + 70_000;
const STOP: usize = 5;

fn huge(name: &CStr, pages: usize, flags: MFdFlags) -> Result<(File, Region)> {
    let file = File::from(memfd_create(name, flags | MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB)?);
    file.set_len((pages * BYTES) as u64)?;
    let region = Region::of_file(file.as_fd(), pages * BYTES)?;
    Ok((file, region))
}

fn word(file: &File, index: usize) -> Result<u64> {
    let mut read = [0; 8];
    file.read_exact_at(&mut read, index as u64 * 8)?;
    Ok(u64::from_ne_bytes(read))
}

fn run(stage: &mut Stage) -> Result<()> {
    let (file, memory) = huge(c"huge ball game", PAGES, MFdFlags::MFD_CLOEXEC)?;
    memory.set(LAST, 77);
    let (sealed, written) = huge(c"sealed", 1, MFdFlags::MFD_ALLOW_SEALING)?;
    written.set(WORDS - 1, 88);
    drop(written);
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    fcntl(&sealed, FcntlArg::F_ADD_SEALS(seals))?;
    let (_, mapped) = huge(c"mapped", 1, MFdFlags::MFD_CLOEXEC)?;
    mapped.set(300, 99);
    let child = match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => child,
        Forked::Child => {
            victim::return_the_ball(&memory, BALL, STOP);
            exit_now(i32::from(mapped.get(300) != 99))
        }
    };
    let mut ball = 0;
    loop {
        victim::wait_until("the child's answer", || memory.get(BALL) % 2 == 1)?;
        ensure!(memory.get(BALL) == ball + 1, "the number is {} after {ball}", memory.get(BALL));
        ensure!(word(&file, BALL)? == ball + 1, "mapping and descriptor are of two files");
        ensure!(memory.get(LAST) == 77 && mapped.get(300) == 99, "the content is another");
        ball += 2;
        memory.set(BALL, ball);
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    memory.set(STOP, 1);
    ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "the child failed");
    ensure!(memory.get(UNTOUCHED * WORDS) == 0, "a page that was never written is not zero");
    let metadata = file.metadata()?;
    ensure!(metadata.len() == (PAGES * BYTES) as u64, "its size is {}", metadata.len());
    ensure!(metadata.blksize() == BYTES as u64, "its pages have {} bytes", metadata.blksize());
    let name = read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    ensure!(name.to_string_lossy() == "/memfd:huge ball game (deleted)", "its name is {}", name.display());
    ensure!(word(&sealed, WORDS - 1)? == 88, "the sealed content");
    let found = fcntl(&sealed, FcntlArg::F_GET_SEALS)?;
    ensure!(found == seals.bits(), "the seals are {found:#x}");
    let unsealed = fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW));
    ensure!(unsealed == Err(Errno::EPERM), "the first can be sealed: {unsealed:?}");
    let smaps = read_to_string("/proc/self/smaps")?;
    let mappings = smaps.lines().filter(|line| line.starts_with("VmFlags:") && line.contains(" ht")).count();
    ensure!(mappings == 2, "{mappings} mappings are of huge pages");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

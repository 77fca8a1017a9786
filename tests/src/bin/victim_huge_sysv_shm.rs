//! System V segments of huge pages: one that parent and child write, one that nobody has attached, both with something behind the size
//! that was asked for, and one without contents.

use anyhow::{Result, ensure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::sysv::{Attachment, make_huge_segment, remove_segment};
use crfs_tests::victim::{self, Stage};
use nix::sys::wait::{WaitStatus, waitpid};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::Duration;

const PAGE: u64 = 2 << 20;
/// Two pages, and not whole ones.
const SIZE: u64 = PAGE + 300_001;
/// Where the number is: even for the child, odd for the parent.
const BALL: usize = (2 << 20) + 299_990;
const STOP: usize = 17;
/// Behind the size, in its last page.
const BEHIND: u64 = 2 * PAGE - 8;

fn make(size: u64) -> Result<i32> {
    Ok(make_huge_segment(libc::IPC_PRIVATE, size, 0o600, PAGE)?)
}

fn number(memory: &Attachment, at: usize) -> Result<u64> {
    let mut bytes = [0; 8];
    memory.read(at, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// The process's own memory, for what an attachment does not say that it has.
fn own_memory() -> Result<File> {
    Ok(File::options().read(true).write(true).open("/proc/self/mem")?)
}

fn behind(memory: &Attachment) -> Result<[u8; 8]> {
    let mut bytes = [0; 8];
    own_memory()?.read_exact_at(&mut bytes, memory.address() + BEHIND)?;
    Ok(bytes)
}

fn child(memory: &Attachment) -> Result<()> {
    while number(memory, STOP)? == 0 {
        let ball = number(memory, BALL)?;
        if ball.is_multiple_of(2) {
            memory.write(BALL, &(ball + 1).to_ne_bytes())?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let (id, loose, empty) = (make(SIZE)?, make(SIZE)?, make(PAGE)?);
    let memory = Attachment::new(id, true)?;
    own_memory()?.write_all_at(b"attached", memory.address() + BEHIND)?;
    {
        let memory = Attachment::new(loose, true)?;
        own_memory()?.write_all_at(b"detached", memory.address() + BEHIND)?;
    }
    let child = match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => child,
        Forked::Child => exit_now(i32::from(child(&memory).is_err())),
    };
    let mut ball = 0;
    loop {
        victim::wait_until("the child's answer", || number(&memory, BALL).is_ok_and(|ball| ball % 2 == 1))?;
        let now = number(&memory, BALL)?;
        ensure!(now == ball + 1, "the number is {now} after {ball}");
        ball += 2;
        memory.write(BALL, &ball.to_ne_bytes())?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    memory.write(STOP, &[1])?;
    ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "the child failed");
    ensure!(&behind(&memory)? == b"attached", "what lies behind the size");
    ensure!(&behind(&Attachment::new(loose, false)?)? == b"detached", "the segment that nobody had attached");
    ensure!(number(&Attachment::new(empty, true)?, 1 << 20)? == 0, "the segment without contents");
    let smaps = std::fs::read_to_string("/proc/self/smaps")?;
    let huge = smaps.lines().filter(|line| line.starts_with("VmFlags:") && line.contains(" ht")).count();
    ensure!(huge == 1, "{huge} mappings are of huge pages");
    for id in [id, loose, empty] {
        remove_segment(id)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

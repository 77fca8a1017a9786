//! System V shared memory: parent and child hand a number to and fro through a segment with a key; one segment nobody has attached,
//! one is removed and lives on by its attachment.

use anyhow::{Result, ensure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::sysv::{Attachment, find_segment, make_segment, remove_segment};
use crfs_tests::victim::{self, Stage};
use nix::sys::wait::{WaitStatus, waitpid};
use std::process::ExitCode;
use std::time::Duration;

const KEY: i32 = 0x00c0_ffee;
const LOOSE_KEY: i32 = -7;
/// Not whole pages.
const SIZE: u64 = 300_001;
/// Where the number is: even for the child, odd for the parent.
const BALL: usize = 299_990;
const STOP: usize = 17;

fn number(memory: &Attachment) -> Result<u64> {
    let mut bytes = [0; 8];
    memory.read(BALL, &mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn stopped(memory: &Attachment) -> Result<bool> {
    let mut flag = [0];
    memory.read(STOP, &mut flag)?;
    Ok(flag != [0])
}

fn child(memory: &Attachment) -> Result<()> {
    while !stopped(memory)? {
        let ball = number(memory)?;
        if ball.is_multiple_of(2) {
            memory.write(BALL, &(ball + 1).to_ne_bytes())?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    // Ids with a gap below, which are not those a new namespace gives by itself.
    let gap = make_segment(libc::IPC_PRIVATE, 1, 0o600)?;
    let id = make_segment(KEY, SIZE, 0o640)?;
    let loose = make_segment(LOOSE_KEY, 70_000, 0o600)?;
    let doomed = make_segment(libc::IPC_PRIVATE, 5000, 0o600)?;
    remove_segment(gap)?;
    let memory = Attachment::new(id, true)?;
    Attachment::new(loose, true)?.write(69_990, b"nobody has")?;
    let removed = Attachment::new(doomed, true)?;
    removed.write(10, b"still here")?;
    remove_segment(doomed)?;
    let reader = Attachment::new(doomed, false)?;
    let child = match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => child,
        Forked::Child => exit_now(i32::from(child(&memory).is_err())),
    };
    let mut ball = 0;
    loop {
        victim::wait_until("the child's answer", || number(&memory).is_ok_and(|ball| ball % 2 == 1))?;
        let now = number(&memory)?;
        ensure!(now == ball + 1, "the number is {now} after {ball}");
        ball += 2;
        memory.write(BALL, &ball.to_ne_bytes())?;
        if !stage.end_round()? {
            break;
        }
    }
    memory.write(STOP, &[1])?;
    ensure!(waitpid(child, None)? == WaitStatus::Exited(child, 0), "the child failed");
    ensure!((find_segment(KEY)?, find_segment(LOOSE_KEY)?) == (id, loose), "keys lead to other ids");
    ensure!(&Attachment::new(loose, false)?.bytes()[69_990..] == b"nobody has", "the segment nobody had attached");
    removed.write(20, b"!")?;
    ensure!(&reader.bytes()[10..21] == b"still here!", "the segment that was removed");
    drop((removed, reader));
    ensure!(Attachment::new(doomed, false).is_err(), "the segment that was removed outlives its last attachment");
    remove_segment(loose)?;
    remove_segment(id)?;
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Processes whose first thread has called exit(2) while another goes on: this one, and a child.

use anyhow::{Context, Result, ensure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, exit_thread, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, gettid};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// What the child's first thread leaves behind, which /proc shows.
const FIRST: i32 = 3;
/// What its last thread does, which is the end of the process.
const LAST: i32 = 5;

/// The child's other thread: answers each byte with the next one, until nobody asks any more.
fn answer(mut line: UnixStream) -> Result<()> {
    let tid = gettid();
    let mut asked = [0];
    loop {
        match line.read_exact(&mut asked) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        ensure!(gettid() == tid && getpid() != tid, "the thread is another");
        line.write_all(&[asked[0].wrapping_add(1)])?;
    }
}

/// Makes the child, and returns it with the parent's end of the line.
fn child() -> Result<(Pid, UnixStream)> {
    let (ours, line) = UnixStream::pair()?;
    match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => Ok((child, ours)),
        Forked::Child => {
            // Otherwise it would hold open what tells it that nobody asks any more.
            drop(ours);
            std::thread::spawn(|| match answer(line) {
                Ok(()) => exit_thread(LAST),
                Err(error) => {
                    eprintln!("the child: {error:#}");
                    exit_now(1)
                }
            });
            exit_thread(FIRST)
        }
    }
}

/// Whether a process's first thread is a zombie although the process lives.
fn lost_its_leader(process: Pid) -> Result<bool> {
    let status = std::fs::read_to_string(format!("/proc/{process}/task/{process}/status"))?;
    Ok(status.contains("\nState:\tZ"))
}

fn run(stage: &mut Stage, child: Pid, mut line: UnixStream) -> Result<()> {
    let tid = gettid();
    let mut count = 0u8;
    loop {
        line.write_all(&[count])?;
        let mut answer = [0];
        line.read_exact(&mut answer).context("the child's answer")?;
        count = count.wrapping_add(1);
        ensure!(answer[0] == count, "the child answered {} and not {count}", answer[0]);
        ensure!(gettid() == tid && getpid() != tid, "the thread is another");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // At the end only: a freeze that met an open file of a thread would be refused.
    for process in [getpid(), child] {
        victim::wait_until("a first thread to be a zombie", || lost_its_leader(process).unwrap_or(false))?;
    }
    let stat = std::fs::read_to_string(format!("/proc/{child}/task/{child}/stat"))?;
    // Field 52, proc_pid_stat(5): an exit code in bits 8 to 15.
    let shown = (FIRST << 8).to_string();
    ensure!(stat.trim().ends_with(&format!(" {shown}")), "the child's first thread ended otherwise: {stat}");
    drop(line);
    let status = waitpid(child, None)?;
    ensure!(status == WaitStatus::Exited(child, LAST), "the child's end is told as {status:?}");
    Ok(())
}

fn main() -> ExitCode {
    // Before there is a second thread.
    let child = child();
    std::thread::spawn(move || {
        let code = victim::main(|stage| {
            let (child, line) = child?;
            run(stage, child, line)
        });
        exit_now(i32::from(code != ExitCode::SUCCESS))
    });
    exit_thread(0)
}

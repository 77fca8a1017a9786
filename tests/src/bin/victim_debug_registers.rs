//! A debug register that a debugger set and left: every write to the word it watches raises SIGTRAP.

use anyhow::{Result, ensure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::{handler, ptrace};
use crfs_tests::victim::{self, Stage};
use nix::sys::ptrace as nix_ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getppid};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

static WATCHED: AtomicU64 = AtomicU64::new(0);
static OTHER: AtomicU64 = AtomicU64::new(0);
/// The first register on, for writes (01), of eight bytes (10): Intel SDM, volume 3, 19.2.4.
const CONTROL: u64 = 1 | 1 << 16 | 2 << 18;

/// Traces the parent, sets its registers, and lets it go.
fn watch(parent: Pid) -> nix::Result<()> {
    nix_ptrace::seize(parent, nix_ptrace::Options::empty())?;
    nix_ptrace::interrupt(parent)?;
    waitpid(parent, Some(WaitPidFlag::__WALL))?;
    let address = (&raw const WATCHED).addr() as u64;
    ptrace::set_debug_registers(parent, &[address, 0, 0, 0, 0, 0, 0, CONTROL])?;
    nix_ptrace::detach(parent, None)
}

fn run(stage: &mut Stage) -> Result<()> {
    handler::install(libc::SIGTRAP, libc::SA_RESTART, 0)?;
    match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Child => exit_now(i32::from(watch(getppid()).is_err())),
        Forked::Parent { child, .. } => {
            let ended = waitpid(child, None)?;
            ensure!(ended == WaitStatus::Exited(child, 0), "the debugger ended with {ended:?}");
        }
    }
    let mut trapped = 0;
    loop {
        OTHER.fetch_add(1, Ordering::SeqCst);
        ensure!(handler::delivered(libc::SIGTRAP) == trapped, "a word is watched that was not");
        WATCHED.fetch_add(1, Ordering::SeqCst);
        trapped += 1;
        ensure!(handler::delivered(libc::SIGTRAP) == trapped, "the word is no longer watched");
        if !stage.end_round_and_rest()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

//! A signal descriptor: its mask, and a signal that waits in it.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use std::process::ExitCode;

fn run(stage: &mut Stage) -> Result<()> {
    let mut all = SigSet::empty();
    all.add(Signal::SIGUSR1);
    all.add(Signal::SIGUSR2);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&all), None)?;
    let mut one = SigSet::empty();
    one.add(Signal::SIGUSR1);
    let descriptor = SignalFd::with_flags(&one, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    // Not in the descriptor's mask, so that it must never come out of it.
    kill(Pid::this(), Signal::SIGUSR2)?;
    kill(Pid::this(), Signal::SIGUSR1)?;
    loop {
        // Sent at the end of the last round, read at the start of this one: it is pending in between.
        let info = descriptor.read_signal()?.context("the pending signal is lost")?;
        ensure!(info.ssi_signo == libc::SIGUSR1.unsigned_abs(), "signal {} came", info.ssi_signo);
        ensure!(info.ssi_pid == Pid::this().as_raw().unsigned_abs(), "it came from {}", info.ssi_pid);
        ensure!(descriptor.read_signal()?.is_none(), "a second signal came");
        kill(Pid::this(), Signal::SIGUSR1)?;
        if !stage.end_round_and_rest()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

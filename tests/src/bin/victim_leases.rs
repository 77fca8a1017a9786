//! Leases on files: held until somebody opens the file, of which the holder is told with the signal it asked for.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage, suffixed, wait_until};
use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::ExitCode;

fn run(stage: &mut Stage) -> Result<()> {
    let path = |name| suffixed(stage.path(), name);
    let (read, written) = (path("read"), path("written"));
    for path in [&read, &written] {
        fs::write(path, "leased")?;
    }
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR1);
    mask.add(Signal::SIGIO);
    mask.thread_block()?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let reader = File::open(&read)?;
    let writer = File::options().read(true).write(true).open(&written)?;
    crfs_sys::owner::set_signal(writer.as_fd(), Signal::SIGUSR1 as i32)?;
    crfs_sys::lock::set_lease(reader.as_fd(), libc::F_RDLCK)?;
    crfs_sys::lock::set_lease(writer.as_fd(), libc::F_WRLCK)?;
    loop {
        let held = [crfs_sys::lock::lease(reader.as_fd())?, crfs_sys::lock::lease(writer.as_fd())?];
        ensure!(held == [libc::F_RDLCK, libc::F_WRLCK], "the leases are {held:?}");
        ensure!(signals.read_signal()?.is_none(), "somebody broke a lease");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    let breaks = |path, write, signal: Signal, holder: &File| -> Result<()> {
        let opened = File::options().read(true).write(write).custom_flags(libc::O_NONBLOCK).open(path);
        let errno = opened.err().and_then(|error| error.raw_os_error());
        ensure!(errno == Some(Errno::EWOULDBLOCK as i32), "opening it: {errno:?}");
        let mut told = None;
        wait_until("the signal", || {
            told = signals.read_signal().ok().flatten();
            told.is_some()
        })?;
        let told = told.context("a signal")?;
        ensure!(told.ssi_signo == signal as u32, "signal {}", told.ssi_signo);
        ensure!(signal == Signal::SIGIO || told.ssi_fd == holder.as_raw_fd(), "of descriptor {}", told.ssi_fd);
        crfs_sys::lock::set_lease(holder.as_fd(), libc::F_UNLCK)?;
        Ok(())
    };
    breaks(&read, true, Signal::SIGIO, &reader)?;
    breaks(&written, false, Signal::SIGUSR1, &writer)?;
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

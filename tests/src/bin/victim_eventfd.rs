//! Event counters: one of each kind, a full one, and a duplicate of the first.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::process::ExitCode;

fn run(stage: &mut Stage) -> Result<()> {
    let nonblocking = EfdFlags::EFD_NONBLOCK;
    let counter = EventFd::from_value_and_flags(5, nonblocking | EfdFlags::EFD_CLOEXEC)?;
    let semaphore = EventFd::from_value_and_flags(0x7fff_ffff, EfdFlags::EFD_SEMAPHORE | nonblocking)?;
    let full = EventFd::from_flags(nonblocking)?;
    full.write(u64::MAX - 1)?;
    let duplicate = nix::unistd::dup(&counter)?;
    let mut taken = 0;
    loop {
        ensure!(counter.read()? == 5, "the counter is not 5");
        let value = 5u64.to_ne_bytes();
        ensure!(nix::unistd::write(&duplicate, &value)? == 8, "the duplicate took no value");
        ensure!(semaphore.read()? == 1, "the semaphore does not count by one");
        taken += 1;
        ensure!(full.write(1) == Err(Errno::EAGAIN), "the full counter takes more");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    for _ in 0..3 {
        ensure!(semaphore.read()? == 1, "the semaphore is empty after {taken}");
    }
    ensure!(full.read()? == u64::MAX - 1, "the full counter lost its value");
    ensure!(full.read() == Err(Errno::EAGAIN), "the full counter is not empty after it was read");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Blocked signals that are pending: real-time ones with values, in order, for the process and for the thread; what the kernel sent for a
//! timer, and a fault.

use anyhow::{Result, ensure};
use crfs_sys::itimer::{self, Which};
use crfs_sys::signal;
use crfs_sys::sigqueue::{self, Taken};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, gettid};
use std::process::ExitCode;
use std::time::Duration;

const REAL_TIME: i32 = 37;
/// Of the kernel (SI_KERNEL), and of a fault (SEGV_ACCERR): asm-generic/siginfo.h.
const BY_KERNEL: i32 = 0x80;
const ACCESS: i32 = 2;
const ADDRESS: u64 = 0x7777_1234_5678;
const VALUES: [usize; 4] = [7, 0xdead_beef_0bad_cafe, 0, 7];

fn run(stage: &mut Stage) -> Result<()> {
    let signals = [REAL_TIME, libc::SIGUSR1, libc::SIGUSR2, libc::SIGALRM, libc::SIGSEGV];
    let mask = signals.map(signal::bit).iter().sum();
    signal::set_mask(mask)?;
    for value in VALUES {
        sigqueue::queue(Pid::this(), REAL_TIME, value)?;
    }
    kill(Pid::this(), Signal::SIGUSR1)?;
    sigqueue::to_thread(gettid(), libc::SIGUSR2)?;
    sigqueue::queue_fault(libc::SIGSEGV, ACCESS, ADDRESS)?;
    itimer::set(Which::Real, Duration::from_millis(1), Duration::ZERO)?;
    victim::wait_until("SIGALRM", || sigqueue::pending().is_ok_and(|pending| pending == mask))?;
    loop {
        ensure!(signal::mask()? == mask, "the mask changed");
        ensure!(sigqueue::pending()? == mask, "pending is {:#x} and not {mask:#x}", sigqueue::pending()?);
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // The thread's own queue comes first.
    let pid = Pid::this().as_raw();
    let now = Some(Duration::ZERO);
    ensure_taken(libc::SIGUSR2, sigqueue::take(mask, now)?, libc::SI_TKILL, pid)?;
    // A fault before all others. Where they have a process it has its address.
    let low = i32::from_ne_bytes(std::array::from_fn(|byte| ADDRESS.to_ne_bytes()[byte]));
    ensure_taken(libc::SIGSEGV, sigqueue::take(mask, now)?, ACCESS, low)?;
    ensure_taken(libc::SIGUSR1, sigqueue::take(mask, now)?, libc::SI_USER, pid)?;
    ensure_taken(libc::SIGALRM, sigqueue::take(mask, now)?, BY_KERNEL, 0)?;
    for value in VALUES {
        let taken = sigqueue::take(mask, now)?;
        ensure_taken(REAL_TIME, taken, libc::SI_QUEUE, pid)?;
        ensure!(taken.value == value, "value {:#x} and not {value:#x}", taken.value);
    }
    ensure!(sigqueue::take(mask, now) == Err(Errno::EAGAIN), "more signals are pending than were sent");
    Ok(())
}

fn ensure_taken(signal: i32, taken: Taken, code: i32, pid: i32) -> Result<()> {
    let right = (taken.signal, taken.code, taken.pid) == (signal, code, pid);
    ensure!(right, "took {taken:?}, and not signal {signal} with code {code} from {pid}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

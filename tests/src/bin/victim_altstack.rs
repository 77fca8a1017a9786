//! An alternate signal stack, and a handler that runs on it.

use anyhow::{Result, ensure};
use crfs_sys::{handler, signal};
use crfs_tests::victim::{self, Stage};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::ExitCode;

const SIZE: usize = 64 << 10;

fn run(stage: &mut Stage) -> Result<()> {
    let stack = handler::set_alternate_stack(SIZE)?;
    let flags = libc::SA_ONSTACK | libc::SA_RESTART | libc::SA_NODEFER;
    handler::install(libc::SIGUSR1, flags, signal::bit(libc::SIGUSR2) | signal::bit(40))?;
    handler::install(44, libc::SA_RESTART, 0)?;
    let action = handler::action(libc::SIGUSR1)?;
    let mut sent = 0;
    loop {
        ensure!(handler::alternate_stack()? == (stack, SIZE, 0), "the alternate stack is another");
        ensure!(handler::action(libc::SIGUSR1)? == action, "the action of SIGUSR1 is another");
        kill(Pid::this(), Signal::SIGUSR1)?;
        sent += 1;
        ensure!(handler::delivered(libc::SIGUSR1) == sent, "the handler did not run once for each signal");
        let at = handler::last_stack_pointer();
        ensure!((stack..stack + SIZE).contains(&at), "the handler ran at {at:#x}, outside the alternate stack");
        ensure!(handler::action(44)?.0 == action.0, "the action of signal 44 is another");
        ensure!(handler::action(libc::SIGHUP)?.0 == libc::SIG_DFL, "SIGHUP has an action");
        if !stage.end_round_and_rest()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

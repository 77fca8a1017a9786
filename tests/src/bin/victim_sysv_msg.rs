//! A System V message queue that is never empty: nothing in it may be lost, doubled, reordered or of another type.

use anyhow::{Result, ensure};
use crfs_sys::sysv::{make_queue, queue_capacity, remove_queue, send_message, take_message};
use crfs_tests::victim::{self, Stage};
use std::process::ExitCode;

const QUEUED: u64 = 40;

/// The message of a number: its type, and bytes of a length of its own.
fn message(number: u64) -> (i64, Vec<u8>) {
    let byte = u8::try_from(number % 251).unwrap_or(0);
    let length = usize::try_from(number % 7 * 50).unwrap_or(0);
    (i64::from(byte) + 1, vec![byte; length])
}

fn run(stage: &mut Stage) -> Result<()> {
    let queue = make_queue(libc::IPC_PRIVATE, 0o622)?;
    let capacity = queue_capacity(queue)?;
    let send = |number| {
        let (kind, text) = message(number);
        send_message(queue, kind, &text)
    };
    (0..QUEUED).try_for_each(send)?;
    let mut next = 0;
    loop {
        let taken = take_message(queue, 4096)?;
        ensure!(taken == message(next), "message {next} is {taken:?}");
        send(next + QUEUED)?;
        next += 1;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    ensure!(queue_capacity(queue)? == capacity, "its capacity is another");
    remove_queue(queue)?;
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

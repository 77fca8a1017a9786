//! Vector and general registers hold a pattern while the program spins; mask and memory are looked at in between.

use anyhow::{Result, bail, ensure};
use crfs_sys::{signal, vector};
use crfs_tests::victim::{self, Stage};
use std::process::ExitCode;

/// About 10 ms of `pause`.
const SPINS: u64 = 500_000;

fn run(stage: &mut Stage) -> Result<()> {
    let blocked = signal::bit(libc::SIGUSR1) | signal::bit(libc::SIGTERM) | signal::bit(50);
    signal::set_mask(blocked)?;
    let memory: Vec<u64> = (0..131_072).collect();
    loop {
        match vector::hold(stage.round(), SPINS) {
            None => bail!("this CPU has no AVX"),
            Some(held) => ensure!(held, "registers changed while spinning"),
        }
        ensure!(signal::mask()? == blocked, "the signal mask changed");
        ensure!(memory.iter().zip(0..).all(|(&word, expected)| word == expected), "memory changed");
        if !stage.end_round()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

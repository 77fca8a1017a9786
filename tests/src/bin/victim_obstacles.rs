//! Things that version 1 does not carry: two sockets. The program uses them all the time, so that it is seen whether a refused
//! checkpoint left them alone.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage};
use std::io::{Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::ExitCode;

fn run(stage: &mut Stage) -> Result<()> {
    let (mut near, mut far) = UnixStream::pair()?;
    let (left, right) = UnixDatagram::pair()?;
    loop {
        let mut word = [0; 8];
        near.write_all(&stage.round().to_le_bytes())?;
        far.read_exact(&mut word)?;
        ensure!(u64::from_le_bytes(word) == stage.round(), "the stream lost something");
        left.send(&word)?;
        ensure!(right.recv(&mut word)? == 8, "the datagram lost something");
        if !stage.end_round_and_rest()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

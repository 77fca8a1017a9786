//! A pipe in packet mode: each read gives one packet, and what it has no room for is thrown away.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read, write};
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

/// Lengths that go round: one byte, a whole page, and what a stream would run together.
const LENGTHS: [usize; 6] = [1, 1, 4096, 5, 4095, 100];

struct Packets {
    out: OwnedFd,
    into: OwnedFd,
    queued: VecDeque<Vec<u8>>,
    written: usize,
}

impl Packets {
    fn put(&mut self) -> Result<()> {
        let length = LENGTHS[self.written % LENGTHS.len()];
        let packet: Vec<u8> = (self.written..self.written + length).map(|n| n.to_le_bytes()[0]).collect();
        ensure!(write(&self.into, &packet)? == length, "a packet was cut");
        self.queued.push_back(packet);
        self.written += 1;
        Ok(())
    }

    /// Reads a packet, or its beginning.
    fn take(&mut self, room: usize) -> Result<()> {
        let mut found = vec![0; room];
        let length = read(&self.out, &mut found)?;
        let expected = self.queued.pop_front().unwrap_or_default();
        let part = &expected[..expected.len().min(room)];
        ensure!(found[..length] == *part, "{length} bytes in place of a packet of {}", expected.len());
        Ok(())
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let (out, into) = pipe2(OFlag::O_DIRECT | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
    let mut packets = Packets { out, into, queued: VecDeque::new(), written: 0 };
    // Packets that stay when their writer turned to bytes without boundaries, and one alone.
    let (alone_out, alone_into) = pipe2(OFlag::O_DIRECT | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
    write(&alone_into, b"packet")?;
    fcntl(&alone_into, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    for _ in 0..10 {
        packets.put()?;
    }
    loop {
        packets.take(if stage.round().is_multiple_of(2) { 8192 } else { 3 })?;
        packets.put()?;
        let mode = |end: &OwnedFd| fcntl(end, FcntlArg::F_GETFL).map(OFlag::from_bits_truncate);
        ensure!(mode(&packets.into)?.contains(OFlag::O_DIRECT), "O_DIRECT is gone");
        ensure!(!mode(&alone_into)?.contains(OFlag::O_DIRECT), "O_DIRECT has come");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    while !packets.queued.is_empty() {
        packets.take(8192)?;
    }
    ensure!(read(&packets.out, &mut [0; 1]) == Err(Errno::EAGAIN), "more packets than were written");
    write(&alone_into, b"bytes")?;
    let mut found = [0; 3];
    ensure!(read(&alone_out, &mut found)? == 3 && found == *b"pac", "the beginning of the packet is {found:?}");
    ensure!(read(&alone_out, &mut found)? == 3 && found == *b"byt", "after the packet comes {found:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

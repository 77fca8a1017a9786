//! A half-full pipe of an unusual capacity: nothing of what is in it may be lost, doubled or reordered.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{pipe2, read, write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

const CAPACITY: i32 = 128 << 10;
const QUEUED: usize = 70_000;

/// The byte at a position of the stream: of a period that no page size divides.
fn byte(position: u64) -> u8 {
    u8::try_from(position % 251).unwrap_or(0)
}

struct Stream {
    out: OwnedFd,
    into: OwnedFd,
    read: u64,
    written: u64,
}

impl Stream {
    fn put(&mut self, count: u64) -> Result<()> {
        let bytes: Vec<u8> = (self.written..self.written + count).map(byte).collect();
        ensure!(write(&self.into, &bytes)? == bytes.len(), "the pipe took less than {count} bytes");
        self.written += count;
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<()> {
        let mut bytes = vec![0; count];
        let got = read(&self.out, &mut bytes)?;
        ensure!(got == count, "got {got} bytes and not {count} at {}", self.read);
        for found in bytes {
            ensure!(found == byte(self.read), "byte {} of the stream is wrong", self.read);
            self.read += 1;
        }
        Ok(())
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let (out, into) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC)?;
    fcntl(&into, FcntlArg::F_SETPIPE_SZ(CAPACITY))?;
    let mut stream = Stream { out, into, read: 0, written: 0 };
    while stream.written < QUEUED as u64 {
        stream.put(1000)?;
    }
    loop {
        stream.take(777)?;
        stream.put(777)?;
        ensure!(fcntl(&stream.out, FcntlArg::F_GETPIPE_SZ)? == CAPACITY, "the capacity changed");
        let flags = OFlag::from_bits_truncate(fcntl(&stream.out, FcntlArg::F_GETFL)?);
        ensure!(flags.contains(OFlag::O_NONBLOCK), "O_NONBLOCK is gone");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    stream.take(QUEUED)?;
    ensure!(read(&stream.out, &mut [0; 1]) == Err(Errno::EAGAIN), "more is in the pipe than was written");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

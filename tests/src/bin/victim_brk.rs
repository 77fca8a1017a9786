//! The heap below the program break: its contents, its place, and that it grows on.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage};
use std::process::ExitCode;

/// Below the size from which the C library maps memory of its own.
const PIECE: usize = 64 << 10;

/// Start and end of the heap.
fn heap() -> Result<(usize, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let line = maps.lines().find(|line| line.ends_with("[heap]")).context("there is no [heap]")?;
    let (start, rest) = line.split_once('-').context("a range")?;
    let (end, _) = rest.split_once(' ').context("an end")?;
    Ok((usize::from_str_radix(start, 16)?, usize::from_str_radix(end, 16)?))
}

fn run(stage: &mut Stage) -> Result<()> {
    let (start, _) = heap()?;
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    loop {
        let (now, end_then) = heap()?;
        ensure!(now == start, "the heap starts at {now:#x} and not {start:#x}");
        if pieces.len() < 64 {
            let mark = u8::try_from(pieces.len())?;
            pieces.push(vec![mark; PIECE]);
            let at = pieces.last().context("a piece")?.as_ptr().addr();
            let end = heap()?.1;
            ensure!((start..end).contains(&at), "{at:#x} is not on the heap");
            ensure!(end >= end_then, "the heap shrank");
        } else {
            pieces.truncate(8);
        }
        for (piece, mark) in pieces.iter().zip(0u8..) {
            ensure!(piece.iter().all(|&byte| byte == mark), "piece {mark} changed");
        }
        if !stage.end_round_and_rest()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

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

/// Fills the heap up to 64 pieces, a round each, then starts over; looks at the contents of all.
fn fill(pieces: &mut Vec<Vec<u8>>) -> Result<()> {
    if pieces.len() < 64 {
        let mark = u8::try_from(pieces.len())?;
        pieces.push(vec![mark; PIECE]);
    } else {
        pieces.truncate(8);
    }
    for (piece, mark) in pieces.iter().zip(0u8..) {
        ensure!(piece.iter().all(|&byte| byte == mark), "piece {mark} changed");
    }
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let (start, _) = heap()?;
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    loop {
        fill(&mut pieces)?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // At the end only: a freeze that met an open file of /proc would be refused.
    let (now, end) = heap()?;
    ensure!(now == start, "the heap starts at {now:#x} and not {start:#x}");
    let outside = pieces.iter().find(|piece| !(start..end).contains(&piece.as_ptr().addr()));
    ensure!(outside.is_none(), "a piece is not on the heap");
    pieces.extend((0..64).map(|_| vec![0xff; PIECE]));
    ensure!(heap()?.1 > end, "the heap does not grow any more");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Much memory (60 MiB unless told otherwise) with known contents, a little of which changes every round.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage};
use std::process::ExitCode;

fn word(index: usize) -> u64 {
    (index as u64 ^ 0x5555_aaaa).wrapping_mul(0x2545_f491_4f6c_dd1d)
}

fn run(stage: &mut Stage) -> Result<()> {
    let mib: usize = stage.arguments().first().map_or(Ok(60), |n| n.parse())?;
    let mut data: Vec<u64> = (0..mib << 17).map(word).collect();
    let step = data.len() / 97;
    loop {
        let at = usize::try_from(stage.round() % 97)? * step;
        ensure!(data[at] == word(at), "word {at} changed");
        // Moves on and back, so that the whole is the same after every round.
        data[at] = !data[at];
        std::hint::black_box(&mut data);
        data[at] = !data[at];
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    for (index, &found) in data.iter().enumerate() {
        ensure!(found == word(index), "word {index} changed");
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

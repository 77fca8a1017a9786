//! Files of /proc that stay open: one of the machine and one of the program itself that are read from their beginning in every round,
//! and one that was read half way, by itself and by a duplicate.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::process::ExitCode;

const PARAMETER: &str = "/proc/sys/kernel/pid_max";
/// So far was read in the file that is left half way.
const HALF: u64 = 100;

fn read_again(file: &mut File) -> Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

fn run(stage: &mut Stage) -> Result<()> {
    let mut machine = File::open("/proc/stat")?;
    let mut own = File::open("/proc/self/stat")?;
    // Of a namespace.
    let mut parameter = File::open(PARAMETER)?;
    let mut half = File::open("/proc/self/limits")?;
    let mut duplicate = half.try_clone()?;
    half.read_exact(&mut [0; 100])?;
    loop {
        ensure!(read_again(&mut machine)?.starts_with("cpu "), "/proc/stat says something else");
        ensure!(read_again(&mut parameter)? == fs::read_to_string(PARAMETER)?, "{PARAMETER} says something else");
        let text = read_again(&mut own)?;
        let pid: u32 = text.split(' ').next().context("a word")?.parse()?;
        ensure!(pid == std::process::id(), "/proc/self/stat is that of process {pid}");
        ensure!(half.stream_position()? == HALF, "the offset is {}", half.stream_position()?);
        let whole = fs::read("/proc/self/limits")?;
        let mut word = [0; 20];
        duplicate.read_exact(&mut word)?;
        ensure!(whole[100..120] == word, "what follows at {HALF} is {:?}", String::from_utf8_lossy(&word));
        ensure!(half.stream_position()? == HALF + 20, "the offset is not shared");
        half.seek(SeekFrom::Start(HALF))?;
        if !stage.end_round_and_rest()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Files of /proc that stay open: one of the machine and one of the program itself that are read from their beginning in every round,
//! and one that was read half way, by itself and by a duplicate. Those of descriptors, of the process and of a thread. Directories: its own, one below it
//! as a place only, and the listing of its descriptors, in which it has come half way.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::dir::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
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

/// What a file below a directory says.
fn below(directory: &File, name: &str) -> Result<String> {
    let mut text = String::new();
    File::from(openat(directory, name, OFlag::O_RDONLY, Mode::empty())?).read_to_string(&mut text)?;
    Ok(text)
}

/// The lowest descriptor in a listing of /proc/PID/fd from where it stands, which is put back.
fn lowest(listing: &mut File) -> Result<Option<i32>> {
    let position = listing.stream_position()?;
    let mut entries = Dir::from_fd(listing.as_fd().try_clone_to_owned()?)?;
    let numbers = entries.iter().map(|entry| Ok(entry?.file_name().to_str()?.parse().ok()));
    let numbers: Vec<Option<i32>> = numbers.collect::<Result<_>>()?;
    listing.seek(SeekFrom::Start(position))?;
    Ok(numbers.into_iter().flatten().min())
}

fn run(stage: &mut Stage) -> Result<()> {
    let mut machine = File::open("/proc/stat")?;
    let mut own = File::open("/proc/self/stat")?;
    // Of a namespace.
    let mut parameter = File::open(PARAMETER)?;
    let mut half = File::open("/proc/self/limits")?;
    let mut duplicate = half.try_clone()?;
    half.read_exact(&mut [0; 100])?;
    let thread = format!("/proc/self/task/{}/fdinfo/{}", std::process::id(), machine.as_raw_fd());
    let mut described = [File::open(format!("/proc/self/fdinfo/{}", own.as_raw_fd()))?, File::open(thread)?];
    let directory = File::open("/proc/self")?;
    let place = File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open("/proc/self/task")?;
    let mut listing = File::open("/proc/self/fd")?;
    // The first two places are those of `.` and `..`, and then one for each number.
    listing.seek(SeekFrom::Start(2 + 2))?;
    loop {
        let own_stat = format!("{} (", std::process::id());
        ensure!(below(&directory, "stat")?.starts_with(&own_stat), "its directory is that of another process");
        let thread = format!("{}/stat", std::process::id());
        ensure!(below(&place, &thread)?.starts_with(&own_stat), "a place leads to another process");
        let lowest = lowest(&mut listing)?;
        ensure!(lowest == Some(2), "the listing goes on at {lowest:?}");
        ensure!(read_again(&mut machine)?.starts_with("cpu "), "/proc/stat says something else");
        ensure!(read_again(&mut parameter)? == fs::read_to_string(PARAMETER)?, "{PARAMETER} says something else");
        let text = read_again(&mut own)?;
        let pid: u32 = text.split(' ').next().context("a word")?.parse()?;
        ensure!(pid == std::process::id(), "/proc/self/stat is that of process {pid}");
        for (described, of) in described.iter_mut().zip([&own, &machine]) {
            let told = read_again(described)?;
            let there = fs::read_to_string(format!("/proc/self/fdinfo/{}", of.as_raw_fd()))?;
            ensure!(told == there, "of {of:?} it is told {told} in the place of {there}");
        }
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

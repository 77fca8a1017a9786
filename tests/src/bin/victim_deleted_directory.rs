//! A process whose working directory was deleted, with a deleted directory open, and another as a mere place.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage, suffixed};
use nix::sys::stat::fstat;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::process::ExitCode;

fn is_gone(directory: impl AsFd, mode: u32) -> Result<()> {
    let found = fstat(directory)?;
    ensure!(found.st_mode == libc::S_IFDIR | mode, "its mode is {:o}", found.st_mode);
    ensure!(found.st_nlink == 0, "it has {} links", found.st_nlink);
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let make = |name, mode| -> Result<_> {
        let path = suffixed(stage.path(), name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(path)
    };
    let (working, open, place) = (make("working", 0o711)?, make("open", 0o750)?, make("place", 0o700)?);
    let opened = File::open(&open)?;
    let placed = File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(&place)?;
    std::env::set_current_dir(&working)?;
    for path in [&working, &open, &place] {
        fs::remove_dir(path)?;
    }
    loop {
        let here = fs::read_link("/proc/self/cwd")?;
        ensure!(here.as_os_str().to_string_lossy() == format!("{} (deleted)", working.display()), "it is in {here:?}");
        is_gone(File::open(".")?, 0o711)?;
        is_gone(&opened, 0o750)?;
        is_gone(&placed, 0o700)?;
        let made = File::create("file");
        ensure!(made.is_err_and(|error| error.kind() == ErrorKind::NotFound), "a file was made in it");
        ensure!(!working.exists() && !open.exists() && !place.exists(), "one of them is there again");
        if !stage.end_round_and_rest()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Resource limits, file creation mask, working directory, name, niceness, host name.
//!
//! Arguments of the form `KEY=VALUE` (umask, nofile, cwd, hostname) are what the final check expects in place of what was set: for a
//! checkpoint that was edited.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage, suffixed};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

/// What is carried, in words: for one file, so that a test can read it from outside too.
fn state() -> Result<String> {
    let mask = umask(Mode::empty());
    umask(mask);
    let (nofile, core) = (getrlimit(Resource::RLIMIT_NOFILE)?, getrlimit(Resource::RLIMIT_CORE)?);
    let cwd = std::env::current_dir()?;
    let host = nix::unistd::gethostname()?.into_string().ok().context("host name")?;
    let comm = nix::sys::prctl::get_name()?.into_string().ok().context("name")?;
    Ok(format!(
        "umask={:03o} nofile={}/{} core={}/{} cwd={} hostname={host} comm={}",
        mask.bits(),
        nofile.0,
        nofile.1,
        core.0,
        core.1,
        cwd.display(),
        comm
    ))
}

fn run(stage: &mut Stage) -> Result<()> {
    let edited = stage.arguments().first().is_some_and(|argument| argument == "edited");
    let directory = suffixed(stage.path(), "dir");
    fs::create_dir_all(&directory)?;
    std::env::set_current_dir(&directory)?;
    umask(Mode::from_bits_truncate(0o027));
    setrlimit(Resource::RLIMIT_NOFILE, 200, 300)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 1 << 20)?;
    nix::sys::prctl::set_name(c"a victim")?;
    let then = state()?;
    loop {
        let now = state()?;
        // Told to expect an edited checkpoint, it only shows what it finds.
        ensure!(edited || now == then, "was {then:?} and is {now:?}");
        fs::write(suffixed(stage.path(), "state"), &now)?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    // Relative, and with the mask: both at work, not only shown.
    fs::write("here", "")?;
    let mode = fs::metadata("here")?.permissions().mode() & 0o777;
    fs::write(suffixed(stage.path(), "made"), format!("{}:{mode:03o}", fs::canonicalize("here")?.display()))?;
    ensure!(edited || (mode == 0o640 && directory.join("here").exists()), "a new file has mode {mode:03o}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

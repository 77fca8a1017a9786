//! What /proc shows of a program: arguments, environment, executable, auxiliary vector.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage};
use std::process::ExitCode;

fn shown() -> Result<Vec<Vec<u8>>> {
    let mut shown = Vec::new();
    for name in ["cmdline", "environ", "auxv", "comm"] {
        shown.push(std::fs::read(format!("/proc/self/{name}"))?);
    }
    shown.push(std::fs::read_link("/proc/self/exe")?.into_os_string().into_encoded_bytes());
    Ok(shown)
}

fn run(stage: &mut Stage) -> Result<()> {
    let then = shown()?;
    let arguments: Vec<u8> = std::env::args().flat_map(|argument| [argument.into_bytes(), vec![0]].concat()).collect();
    while stage.end_round_and_rest()? {
        ensure!(std::env::args().next().is_some(), "the arguments are gone from memory");
    }
    // At the end only: a freeze that met an open file of /proc would be refused.
    let now = shown()?;
    for (index, name) in ["cmdline", "environ", "auxv", "comm", "exe"].iter().enumerate() {
        ensure!(now[index] == then[index], "/proc/self/{name} changed");
    }
    ensure!(now[0] == arguments, "/proc/self/cmdline is not the arguments");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

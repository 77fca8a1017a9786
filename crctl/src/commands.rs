//! What each command does: asks the library, and prints the answer.

mod change;
mod logs;
mod plan;
mod run;
mod tell;

use crate::cli::{Cli, Command};
use anyhow::Result;
use crfs::failure::{Failure, Kind};
use crfs::registry::Registry;
use std::os::unix::fs::MetadataExt;

/// Runs a command line.
///
/// # Errors
/// What the library refused, or that the output could not be written.
pub(crate) fn run(cli: Cli) -> Result<()> {
    let json = cli.json;
    // A copy is plain files: whoever may read it may look at it.
    if !matches!(cli.command, Command::Plan { .. }) {
        require_root()?;
    }
    let registry = Registry::from_environment();
    match cli.command {
        Command::Run(arguments) => run::run(&registry, &arguments, json),
        Command::Ls => tell::list(&registry, json),
        Command::Status { name: Some(name) } => tell::status(&registry, &name, json),
        Command::Status { name: None } => tell::overview(&registry, json),
        Command::Freeze(arguments) => change::freeze(&registry, &arguments, json),
        Command::Thaw { name } => change::thaw(&registry, &name, json),
        Command::Kill { name } => change::kill(&registry, &name, json),
        Command::Rm { name } => change::remove(&registry, &name, json),
        Command::Logs(arguments) => logs::logs(&registry, &arguments, json),
        Command::Plan { directory } => plan::plan(&directory, json),
    }
}

/// The run directory is root's, and so is everything a container is made of.
fn require_root() -> Result<(), Failure> {
    let uid = std::fs::metadata("/proc/self").map(|meta| meta.uid());
    match uid {
        Ok(uid) if uid != 0 => {
            Err(Failure::new(Kind::System, format!("user {uid}: containers are root's; sudo crctl ...")))
        }
        _ => Ok(()),
    }
}

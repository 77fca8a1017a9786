//! What each command does: asks the library, and prints the answer.

mod add;
mod attach;
mod change;
mod checkpoint;
mod convert;
mod core;
mod diff;
mod exec;
mod inspect;
mod logs;
mod mem;
mod place;
mod plan;
mod run;
mod stream;
mod tell;
mod verify;

use crate::cli::{self, Cli, Command};
use anyhow::Result;
use crfs::failure::{Failure, Kind};
use crfs::registry::Registry;
use std::os::unix::fs::MetadataExt;

/// Runs a command line, and returns the exit code of what succeeded: of `exec` its command's, of what the user was attached to the
/// program's, of all others 0.
///
/// # Errors
/// What the library refused, or that the output could not be written.
pub(crate) fn run(cli: Cli) -> Result<u8> {
    let json = cli.json;
    // A copy is plain files: whoever may read it may look at it.
    let needs_no_privilege = match &cli.command {
        Command::Plan { .. } | Command::Unpack { .. } | Command::Convert { .. } => true,
        Command::Verify { what }
        | Command::Inspect { what }
        | Command::Pack { what }
        | Command::Core { what, .. }
        | Command::Mem(cli::Mem { what, .. }) => place::is_directory(what),
        Command::Diff { one, other } => place::is_directory(one) && place::is_directory(other),
        _ => false,
    };
    if !needs_no_privilege {
        require_root()?;
    }
    let registry = Registry::from_environment();
    let done = match cli.command {
        Command::Exec(arguments) => return exec::exec(&registry, &arguments, json),
        Command::Run(arguments) => return run::run(&registry, &arguments, json),
        Command::Attach { name } => return attach::attach(&registry, &name),
        Command::Add(arguments) => add::add(&registry, &arguments, json),
        Command::Ls => tell::list(&registry, json),
        Command::Status { name: Some(name) } => tell::status(&registry, &name, json),
        Command::Status { name: None } => tell::overview(&registry, json),
        Command::Freeze(arguments) => change::freeze(&registry, &arguments, json),
        Command::Thaw { name } => change::thaw(&registry, &name, json),
        Command::Kill { name } => change::kill(&registry, &name, json),
        Command::Rm { name } => change::remove(&registry, &name, json),
        Command::Logs(arguments) => logs::logs(&registry, &arguments, json),
        Command::Checkpoint(arguments) => checkpoint::checkpoint(&registry, &arguments, json),
        Command::Restore(arguments) => checkpoint::restore(&registry, &arguments, json),
        Command::Pack { what } => stream::pack(&registry, &what),
        Command::Unpack { directory } => stream::unpack(&directory, json),
        Command::Convert { directory, new } => convert::convert(&directory, &new, json),
        Command::Verify { what } => verify::verify(&registry, &what, json),
        Command::Inspect { what } => inspect::inspect(&registry, &what, json),
        Command::Diff { one, other } => diff::diff(&registry, &one, &other, json),
        Command::Mem(arguments) => mem::mem(&registry, &arguments, json),
        Command::Core { what, pid, output } => core::core(&registry, &what, pid, output.as_deref(), json),
        Command::Plan { directory } => plan::plan(&directory, json),
    };
    done.map(|()| 0)
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

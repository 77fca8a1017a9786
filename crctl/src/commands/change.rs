//! The commands that change a container: freeze, thaw, kill, rm.

use crate::cli::Freeze;
use crate::exit::Refused;
use crate::output::{print, print_json, tell, time};
use anyhow::Result;
use crfs::failure::{Failure, Kind};
use crfs::operation::{self, FreezeOptions};
use crfs::registry::{Registry, Status};
use crfs::worker;

pub(super) fn freeze(registry: &Registry, arguments: &Freeze, json: bool) -> Result<()> {
    let name = &arguments.name;
    worker::catch_signals()?;
    let options = FreezeOptions {
        deadline: arguments.deadline,
        inspect: arguments.inspect,
        external: arguments.outside.external.clone(),
    };
    let status = operation::freeze(registry, name, options).map_err(|failure| refused(registry, name, failure))?;
    done(name, "frozen", &status, json)?;
    if json {
        return Ok(());
    }
    if !status.blockers.is_empty() {
        tell(&format!("{name}: kept for looking; no checkpoint can be taken of it:"));
        for blocker in &status.blockers {
            tell(&format!("  {blocker}"));
        }
    }
    match registry.server() {
        Some(server) => print(&format!("its state stands in {}\n", server.mountpoint.join(name).display())),
        None => print("no server is running: `crfs /mnt/crfs` shows its state as files\n"),
    }
}

pub(super) fn thaw(registry: &Registry, name: &str, json: bool) -> Result<()> {
    // Not to be stopped halfway: it takes a moment.
    worker::catch_signals()?;
    done(name, "running", &operation::thaw(registry, name)?, json)
}

pub(super) fn kill(registry: &Registry, name: &str, json: bool) -> Result<()> {
    done(name, "killed", &operation::kill(registry, name)?, json)
}

pub(super) fn remove(registry: &Registry, name: &str, json: bool) -> Result<()> {
    operation::remove(registry, name)?;
    if json {
        print_json(&serde_json::json!({ "name": name, "removed": true }))
    } else {
        print(&format!("{name}: removed\n"))
    }
}

/// A refusal because of what the container holds, with all of that.
pub(super) fn refused(registry: &Registry, name: &str, failure: Failure) -> anyhow::Error {
    if failure.kind != Kind::Blocked {
        return failure.into();
    }
    let status = registry.container(name).and_then(|container| container.status());
    Refused { failure, blockers: status.unwrap_or_default().blockers }.into()
}

/// Prints that it was done, how long it took, and what the user should know.
pub(super) fn done(name: &str, what: &str, status: &Status, json: bool) -> Result<()> {
    if json {
        return print_json(status);
    }
    let (total, parts): (Vec<_>, Vec<_>) = status.timings.iter().partition(|timing| timing.what == "total");
    let parts: Vec<String> = parts.iter().map(|timing| format!("{} {}", timing.what, time(timing.us))).collect();
    let total = total.first().map(|timing| format!(" in {}", time(timing.us))).unwrap_or_default();
    let parts = if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) };
    print(&format!("{name}: {what}{total}{parts}\n"))?;
    for note in &status.notes {
        tell(&format!("note: {note}"));
    }
    Ok(())
}

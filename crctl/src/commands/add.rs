//! `crctl add`.

use crate::cli::Add;
use crate::output::{print, print_json, tell};
use anyhow::Result;
use crfs::adopt::Source;
use crfs::failure::{Failure, Kind};
use crfs::operation;
use crfs::registry::Registry;

pub(super) fn add(registry: &Registry, arguments: &Add, json: bool) -> Result<()> {
    let source = match (arguments.pid, &arguments.cgroup) {
        (Some(pid), None) => Source::Process(pid),
        (None, Some(path)) => Source::Cgroup(path.clone()),
        _ => return Err(Failure::new(Kind::BadName, "either --pid or --cgroup").into()),
    };
    let (record, status) = operation::add(registry, &arguments.name, &source)?;
    if json {
        return print_json(&record);
    }
    let count = record.processes()?.len();
    let count = if count == 1 { "1 process".to_owned() } else { format!("{count} processes") };
    print(&format!(
        "{}: running ({count}); cat its `blockers` tells what a checkpoint could not carry\n",
        record.name
    ))?;
    for note in &status.notes {
        tell(&format!("note: {note}"));
    }
    Ok(())
}

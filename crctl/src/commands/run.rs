//! `crctl run`.

use crate::cli::Run;
use crate::output::{print, print_json};
use anyhow::Result;
use crfs::launch::RunOptions;
use crfs::operation;
use crfs::registry::Registry;

pub(super) fn run(registry: &Registry, arguments: &Run, json: bool) -> Result<()> {
    let options =
        RunOptions { root: arguments.root.clone(), host_net: arguments.host_net, hostname: arguments.hostname.clone() };
    let record = operation::run(registry, &arguments.name, &arguments.command, &options)?;
    if json {
        return print_json(&record);
    }
    let pid = record.init.map_or_else(|| "ended already".to_owned(), |init| format!("pid {}", init.pid));
    print(&format!("{}: running ({pid}); crctl logs {0} shows its output\n", record.name))
}

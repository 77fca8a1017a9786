//! `crctl run`.

use super::attach;
use crate::cli::Run;
use crate::output::{print, print_json};
use anyhow::Result;
use crfs::console::terminal_size;
use crfs::launch::{RunOptions, TerminalSize};
use crfs::operation;
use crfs::registry::Registry;
use std::io::stdin;
use std::os::fd::AsFd;

/// The exit code: 0, or the program's own after `-i`.
pub(super) fn run(registry: &Registry, arguments: &Run, json: bool) -> Result<u8> {
    let size = terminal_size(stdin().as_fd()).map(|size| TerminalSize { rows: size.ws_row, columns: size.ws_col });
    let options = RunOptions {
        root: arguments.root.clone(),
        host_net: arguments.host_net,
        hostname: arguments.hostname.clone(),
        terminal: arguments.tty.then(|| size.unwrap_or_default()),
    };
    let record = operation::run(registry, &arguments.name, &arguments.command, &options)?;
    if arguments.interactive {
        return attach::attach(registry, &record.name);
    }
    if json {
        return print_json(&record).map(|()| 0);
    }
    let pid = record.init.map_or_else(|| "ended already".to_owned(), |init| format!("pid {}", init.pid));
    let verb = if arguments.tty { "attach" } else { "logs" };
    print(&format!("{}: running ({pid}); crctl {verb} {0} shows its output\n", record.name)).map(|()| 0)
}

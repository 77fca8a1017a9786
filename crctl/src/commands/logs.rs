//! `crctl logs`.

use crate::cli::Logs;
use crate::output::{print_bytes, print_json};
use anyhow::{Context, Result};
use crfs::operation;
use crfs::registry::{Registry, State};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::time::Duration;

/// How often a followed log is looked at.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) fn logs(registry: &Registry, arguments: &Logs, json: bool) -> Result<()> {
    let name = &arguments.name;
    operation::state(registry, name)?;
    let path = registry.container(name)?.log_file();
    let mut log = match File::open(&path) {
        // A container that was built from an image has none until it writes: its streams may be joined to something else.
        Err(error) if error.kind() == ErrorKind::NotFound && !arguments.follow => None,
        Err(error) if error.kind() == ErrorKind::NotFound => wait_for_log(registry, name)?,
        other => Some(other.with_context(|| format!("{}: opening", path.display()))?),
    };
    loop {
        // Before reading: what was written before the end is then read.
        let going_on = arguments.follow && is_alive(registry, name);
        let mut part = Vec::new();
        if let Some(log) = &mut log {
            log.read_to_end(&mut part).with_context(|| format!("{}: reading", path.display()))?;
        }
        let wanted = if json { print_part(name, &part) } else { print_bytes(&part) }?;
        if !going_on || !wanted {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
}

/// A part of the log as an object; bytes that are not UTF-8 are replaced.
fn print_part(name: &str, part: &[u8]) -> Result<bool> {
    if !part.is_empty() {
        print_json(&serde_json::json!({ "name": name, "log": String::from_utf8_lossy(part) }))?;
    }
    Ok(true)
}

fn wait_for_log(registry: &Registry, name: &str) -> Result<Option<File>> {
    let path = registry.container(name)?.log_file();
    while is_alive(registry, name) {
        if let Ok(log) = File::open(&path) {
            return Ok(Some(log));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(None)
}

fn is_alive(registry: &Registry, name: &str) -> bool {
    operation::state(registry, name).is_ok_and(|(state, _)| state != State::Exited)
}

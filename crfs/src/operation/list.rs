//! All containers at a glance.

use super::state;
use crate::failure::{Failure, Kind};
use crate::registry::{Registry, State};
use serde::Serialize;
use std::fs;

/// A container in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: State,
    /// Frozen only to be looked at.
    pub inspect: bool,
    /// How many processes it has.
    pub processes: usize,
    /// Bytes of memory its processes have resident, with what they share among themselves or with others divided (PSS).
    pub memory: u64,
    /// When it was started or restored, in seconds since the epoch.
    pub created: u64,
    /// What it runs.
    pub command: Vec<String>,
    /// The host pid of its first process.
    pub init: Option<i32>,
    /// The wait(2) status of its first process, where it is known.
    pub exit_status: Option<i32>,
}

/// All containers, by name. One that is removed meanwhile is left out.
///
/// # Errors
/// When the registry or a cgroup cannot be read.
pub fn list(registry: &Registry) -> Result<Vec<Listed>, Failure> {
    let mut all = Vec::new();
    for name in registry.names()? {
        match listed(registry, &name) {
            Ok(entry) => all.push(entry),
            Err(failure) if failure.kind == Kind::NotFound => {}
            Err(failure) => return Err(failure),
        }
    }
    Ok(all)
}

fn listed(registry: &Registry, name: &str) -> Result<Listed, Failure> {
    let (state, record) = state(registry, name)?;
    let pids = record.processes()?;
    Ok(Listed {
        name: record.name,
        state,
        inspect: record.inspect && state == State::Frozen,
        processes: pids.len(),
        memory: pids.iter().map(|&pid| memory(pid)).sum(),
        created: record.created,
        command: record.command,
        init: record.init.map(|init| init.pid).filter(|_| matches!(state, State::Running | State::Frozen)),
        exit_status: record.exit_status.filter(|_| state == State::Exited),
    })
}

/// The PSS of a process in bytes; 0 for one that ended.
fn memory(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kilobytes| kilobytes.parse::<u64>().ok()).map_or(0, |kib| kib * 1024)
}

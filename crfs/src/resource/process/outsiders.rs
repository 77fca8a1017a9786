//! Groups and sessions that reach beyond the container, where it shares the host's pid namespace: a restore makes them anew, and whoever
//! else is in them would be missing. In a pid namespace of its own such an id shows as 0.

use super::super::Findings;
use super::super::proc::{Proc, Stat};
use super::super::subject::Subjects;
use crate::failure::Failure;
use crate::registry::Record;
use image_format::layout;
use image_format::manifest::NamespaceKind;
use std::collections::BTreeMap;

/// Finds them.
///
/// # Errors
/// When /proc cannot be listed; a process that ends meanwhile is passed over.
pub fn survey(record: &Record, subjects: &Subjects, proc: &mut Proc, findings: &mut Findings) -> Result<(), Failure> {
    if !record.shares(NamespaceKind::Pid) {
        return Ok(());
    }
    let mut groups = BTreeMap::new();
    let mut sessions = BTreeMap::new();
    for pid in proc.numbers(format_args!(""))? {
        if subjects.ids.contains_key(&pid) {
            continue;
        }
        let Ok(stat) = Stat::read(proc, &format!("{pid}/stat")) else { continue };
        // The dead are in the way of nobody but their own ids.
        if !matches!(stat.state, b'Z' | b'X') {
            groups.entry(stat.group).or_insert(pid);
            sessions.entry(stat.session).or_insert(pid);
        }
    }
    for process in &subjects.processes {
        let stat = &process.leader().stat;
        let found = [("session", stat.session, &sessions), ("process group", stat.group, &groups)];
        let other = found.iter().find_map(|&(what, id, others)| Some((what, id, others.get(&id)?)));
        if let Some((what, id, other)) = other {
            findings.block(
                layout::process_file(process.pid, "process"),
                format!("is in the {what} {id} of processes outside the container (process {other} of the host)"),
                "Start it under setsid, or add the process that the others descend from",
            );
        }
    }
    Ok(())
}

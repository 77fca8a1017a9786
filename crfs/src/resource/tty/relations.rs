//! Which terminal is whose controlling terminal, and which group is in its foreground.

use crate::resource::Findings;
use crate::resource::subject::{Process, Subjects};
use image_format::tty::Pty;
use image_format::{Pid, ProcessImage, layout};
use std::collections::BTreeMap;

/// The number of the pseudo-terminal that a process has as its controlling terminal (field 7 of /proc/PID/stat). The error is of
/// another kind of terminal.
fn controlling(process: &Process) -> Result<Option<u32>, ()> {
    let device = u64::try_from(process.leader().stat.tty).map_err(|_| ())?;
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    match (device, major) {
        (0, _) => Ok(None),
        (_, 136..=143) => u32::try_from((major - 136) << 20 | minor).map(Some).map_err(|_| ()),
        _ => Err(()),
    }
}

fn block(process: &Process, findings: &mut Findings) {
    findings.block(
        layout::process_file(process.pid, "process"),
        "has a controlling terminal that lies outside the container",
        "Start it with `crctl run -t`, which gives it a terminal of its own, or under setsid with its output redirected",
    );
}

/// Whether a process that may run has a controlling terminal that no terminal of the container can be.
pub fn survey(process: &Process, subjects: &Subjects, findings: &mut Findings) {
    let stands =
        |number: u32| std::fs::symlink_metadata(format!("/proc/{}/root/dev/pts/{number}", subjects.init)).is_ok();
    if !matches!(controlling(process), Ok(number) if number.is_none_or(stands)) {
        block(process, findings);
    }
}

/// Notes in the records what /proc tells of controlling terminals and foreground groups.
pub fn relate(
    subjects: &Subjects,
    processes: &mut BTreeMap<Pid, ProcessImage>,
    ttys: &mut BTreeMap<u32, Pty>,
    findings: &mut Findings,
) {
    for subject in &subjects.processes {
        let Ok(Some(number)) = controlling(subject) else { continue };
        let Some(pty) = ttys.get_mut(&number) else {
            block(subject, findings);
            continue;
        };
        if let Some(image) = processes.get_mut(&subject.pid) {
            image.process.tty = Some(number);
        }
        if pty.foreground.is_none() {
            pty.foreground = foreground(subject, subjects);
            if pty.foreground.is_none() {
                findings.notes.push(format!(
                    "{}: its foreground group has no process; a restore puts that of the session leader there",
                    layout::tty_file(number)
                ));
            }
        }
    }
    findings.notes.dedup();
}

/// The foreground group of a process's terminal, as the container numbers it.
fn foreground(process: &Process, subjects: &Subjects) -> Option<Pid> {
    let group = process.leader().stat.foreground;
    let member = subjects.processes.iter().find(|other| other.leader().stat.group == group)?;
    member.leader().status.ns_pgid.last().copied().map(Pid)
}

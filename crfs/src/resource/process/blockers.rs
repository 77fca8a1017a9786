//! What of a process cannot be carried, but for what it shares.

use super::super::posix_timer;
use super::super::proc::Proc;
use super::super::subject::{Process, Subjects};
use super::super::{Findings, tty};
use crate::failure::Failure;
use image_format::layout;

/// Obstacles that /proc tells, of a running process too.
///
/// # Errors
/// When the process is gone.
pub fn survey(process: &Process, subjects: &Subjects, proc: &mut Proc, findings: &mut Findings) -> Result<(), Failure> {
    let leader = process.leader();
    let object = layout::process_file(process.pid, "process");
    tty::survey(process, subjects, findings);
    if subjects.has_init && process.alive().host != subjects.init && !subjects.ids.contains_key(&leader.stat.ppid) {
        findings.block(
            &object,
            format!("has its parent (process {} of the host) outside the container", leader.stat.ppid),
            "Start it from inside the container",
        );
    }
    let outside = |ids: &[u32]| ids.last().is_none_or(|&id| id == 0);
    if outside(&leader.status.ns_pgid) || outside(&leader.status.ns_sid) {
        findings.block(
            &object,
            "belongs to a process group or session from outside the container",
            "Start it under setsid",
        );
    }
    posix_timer::survey(process, proc, findings)?;
    Ok(())
}

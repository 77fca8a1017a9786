//! `namespaces`, lines of type time: clocks that the kernel sets, and processes that can be given them.

use super::Findings;
use crate::image::Image;
use crate::layout::{MANIFEST, NAMESPACES, process_file};
use crate::namespaces::NamespaceContent;
use crate::time_namespaces::{ClockHindrance, TimeNamespace};
use crate::types::Pid;
use std::collections::BTreeSet;

/// As many seconds a clock may show when it is set (KTIME_SEC_MAX / 2, kernel/time/namespace.c, v6.18).
const MOST: i64 = 4_611_686_018;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    let mut placed = BTreeSet::new();
    for (index, line) in (0..).zip(&image.namespaces) {
        let NamespaceContent::Time(time) = &line.content else { continue };
        for problem in clocks(image, time).into_iter().chain(children(image, time, &line.processes, &mut placed)) {
            findings.line(NAMESPACES, index, problem);
        }
    }
    for (pid, hindrance) in image.clock_hindrances() {
        let reason = match hindrance {
            ClockHindrance::SharedMemory(other) => {
                format!(
                    "shares: memory: {other} is in another time namespace ({NAMESPACES}), or has another for its children"
                )
            }
            ClockHindrance::User => {
                format!("pid: the time namespace for its children ({NAMESPACES}) belongs to a user namespace")
            }
            ClockHindrance::Others(maker) => {
                format!("pid: {maker} has the same time namespace ({NAMESPACES}) for its children")
            }
        };
        findings.add(&process_file(pid, "process"), reason);
    }
}

fn clocks(image: &Image, time: &TimeNamespace) -> Vec<String> {
    let own = &image.manifest.clocks;
    let mut problems = Vec::new();
    for (field, clock, added) in
        [("monotonic", own.monotonic, time.monotonic), ("boottime", own.boottime, time.boottime)]
    {
        let shown = clock.ns() + added.ns();
        if added.nsec >= 1_000_000_000 || shown < 0 || shown > i128::from(MOST) * 1_000_000_000 {
            problems.push(format!("{field}: with that of {MANIFEST} (clocks) it is negative or out of range"));
        }
    }
    problems
}

fn children(image: &Image, time: &TimeNamespace, members: &[Pid], placed: &mut BTreeSet<Pid>) -> Vec<String> {
    let mut problems = Vec::new();
    for &pid in &time.for_children_of {
        if !image.processes.contains_key(&pid) {
            problems.push(format!("for_children_of: {pid} is no process of the image"));
        } else if !placed.insert(pid) {
            problems.push(format!("for_children_of: {pid} is said to have its children in another too"));
        } else if members.contains(&pid) {
            problems.push(format!("for_children_of: {pid} is in it"));
        }
    }
    if !time.for_children_of.is_empty() && image.maker_of_time(time).is_none() {
        problems.push("for_children_of: all of them share the memory of others".to_owned());
    }
    problems
}

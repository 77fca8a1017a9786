//! What processes share without being threads: given by one of them to another, and told by one.

use super::Findings;
use crate::image::{ProcessImage, ThreadImage};
use crate::layout::{FDS, process_file, thread_file};
use crate::namespaces::UnsharedNamespace;
use crate::pid_namespaces::PidSpaces;
use crate::sharing::{Family, PARTS, Part};
use crate::types::Pid;
use std::collections::BTreeMap;

type Processes = BTreeMap<Pid, ProcessImage>;

pub(super) fn check(processes: &Processes, namespaces: &[UnsharedNamespace], findings: &mut Findings) {
    let spaces = PidSpaces::of(namespaces);
    let family = Family::of(processes, |pid| spaces.is_first(pid));
    for (&pid, process) in processes {
        let shares = &process.process.shares;
        let path = process_file(pid, "process");
        let mut is_sound = true;
        for part in PARTS {
            let Some(owner) = (part.of)(shares) else { continue };
            if let Some(problem) = impossible(processes, owner, part) {
                is_sound = false;
                findings.add(&path, format!("shares.{}: {problem}", part.name));
            }
        }
        if is_sound && family.maker(pid).is_none() {
            findings.add(&path, "shares: neither its parent, nor who has all of it, can have made the process");
        }
        if shares.signal_actions.is_some() && shares.memory.is_none() {
            // clone(2): CLONE_SIGHAND takes CLONE_VM.
            findings.add(&path, "shares.signal_actions: only processes with the same memory share them");
        }
        if let Some((tid, ThreadImage { fds: Some(_), .. })) = process.first_thread() {
            findings.add(&thread_file(pid, tid, FDS), "the first thread has the descriptors of its process");
        }
        let mut empty = |name: &str, owner: Option<Pid>, is_empty: bool| {
            if let Some(owner) = owner.filter(|_| !is_empty) {
                findings.add(&process_file(pid, name), format!("has lines, which stand with process {owner}"));
            }
        };
        empty("mem.segments", shares.memory, process.segments.is_empty());
        empty("fds", shares.descriptors, process.fds.is_empty());
        empty("signal.action", shares.signal_actions, process.actions.is_empty());
        same(processes, process, &path, findings);
        same_of_memory(processes, process, findings);
    }
}

fn impossible(processes: &Processes, owner: Pid, part: Part) -> Option<String> {
    let Some(other) = processes.get(&owner) else { return Some(format!("there is no process {owner}")) };
    let is_anothers = (part.of)(&other.process.shares).is_some();
    is_anothers.then(|| format!("process {owner} says itself that it is another's"))
}

/// What belongs to shared memory and stands in other files of both.
fn same_of_memory(processes: &Processes, process: &ProcessImage, findings: &mut Findings) {
    let owner = process.process.shares.memory.and_then(|owner| processes.get(&owner));
    let Some(owner) = owner else { return };
    let pid = owner.process.pid;
    let mut differs = |file: &str, name: &str| {
        let path = process_file(process.process.pid, file);
        findings.add(&path, format!("{name}process {pid} has another, and they share memory"));
    };
    if process.ldt != owner.ldt {
        differs("ldt", "");
    }
    if process.attr.memory != owner.attr.memory {
        differs("attr", "memory: ");
    }
}

/// What is shared and stands in both records.
fn same(processes: &Processes, process: &ProcessImage, path: &str, findings: &mut Findings) {
    let record = &process.process;
    let other = |owner: Option<Pid>| owner.and_then(|owner| processes.get(&owner)).map(|other| &other.process);
    let mut differs = |name: &str, owner: Pid| {
        findings.add(path, format!("{name}: process {owner} has another, and they share it"));
    };
    if let Some(other) = other(record.shares.memory) {
        if other.exe != record.exe {
            differs("exe", other.pid);
        }
        if other.layout != record.layout {
            differs("layout", other.pid);
        }
    }
    if let Some(other) = other(record.shares.directories) {
        let fields = [
            ("cwd", (&other.cwd, &other.cwd_deleted) != (&record.cwd, &record.cwd_deleted)),
            ("root", other.root != record.root),
            ("umask", other.umask != record.umask),
        ];
        for (name, _) in fields.into_iter().filter(|(_, differ)| *differ) {
            differs(name, other.pid);
        }
    }
}

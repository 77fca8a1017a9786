//! What processes share without being threads: given by a parent to a child, and told by one of them.

use super::Findings;
use crate::image::{ProcessImage, ThreadImage};
use crate::layout::{FDS, process_file, thread_file};
use crate::process::Shares;
use crate::types::Pid;
use std::collections::BTreeMap;

type Processes = BTreeMap<Pid, ProcessImage>;

pub(super) fn check(processes: &Processes, findings: &mut Findings) {
    for (&pid, process) in processes {
        let shares = &process.process.shares;
        let path = process_file(pid, "process");
        for (name, of) in KINDS {
            let Some(owner) = of(shares) else { continue };
            if let Some(problem) = impossible(processes, process, owner, of) {
                findings.add(&path, format!("shares.{name}: {problem}"));
            }
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

type Kind = fn(&Shares) -> Option<Pid>;

const KINDS: [(&str, Kind); 4] = [
    ("memory", |shares| shares.memory),
    ("descriptors", |shares| shares.descriptors),
    ("directories", |shares| shares.directories),
    ("signal_actions", |shares| shares.signal_actions),
];

fn impossible(processes: &Processes, process: &ProcessImage, owner: Pid, of: Kind) -> Option<String> {
    let Some(other) = processes.get(&owner) else { return Some(format!("there is no process {owner}")) };
    if of(&other.process.shares).is_some() {
        return Some(format!("process {owner} says itself that it is another's"));
    }
    let parent = process.process.parent;
    let theirs = processes.get(&parent).and_then(|parent| of(&parent.process.shares));
    let given = parent == owner || theirs == Some(owner);
    (!given).then(|| format!("that of process {owner}, which its parent {parent} has not and so cannot have given it"))
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

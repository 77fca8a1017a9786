//! `namespaces`, lines of type pid: ids that clone3 can be asked for, and namespaces that lie in each other as those of the kernel do.

use super::Findings;
use super::tree::PID_LIMIT;
use crate::image::Image;
use crate::layout::{MOUNTS, NAMESPACES, process_file};
use crate::mounts::MountKind;
use crate::namespaces::{NamespaceContent, UnsharedNamespace};
use crate::pid_namespaces::{PidNamespace, PidSpace, PidSpaces};
use crate::process::JobControl;
use crate::signal::Signal;
use crate::types::Pid;
use std::collections::{BTreeMap, BTreeSet};

const SIGKILL: u32 = 9;
const SIGSTOP: Signal = Signal(19);

/// A process or zombie.
struct Task {
    parent: Pid,
    /// Its own id and those of its threads.
    ids: BTreeSet<Pid>,
    /// The wait(2) status of a zombie.
    status: Option<u32>,
}

pub(super) fn check(image: &Image, findings: &mut Findings) {
    let spaces = PidSpaces::of(&image.namespaces);
    let tasks = tasks(image);
    let known = known(image, &tasks);
    let living: BTreeSet<Pid> = image.processes.values().flat_map(|process| process.threads.keys().copied()).collect();
    let is_pid = |line: &&(u64, &UnsharedNamespace)| matches!(line.1.content, NamespaceContent::Pid(_));
    let lines = (0..).zip(&image.namespaces).filter(|line| is_pid(&line));
    let mut owners: BTreeMap<PidSpace, Option<u32>> = BTreeMap::new();
    for ((line, namespace), (space, pids)) in lines.zip(spaces.all()) {
        for problem in ids(pids, &known).into_iter().chain(nesting(&spaces, space, pids)) {
            findings.line(NAMESPACES, line, format!("ids: {problem}"));
        }
        for problem in members(&spaces, space, namespace, image) {
            findings.line(NAMESPACES, line, format!("processes: {problem}"));
        }
        for problem in for_children_of(&spaces, space, pids, &living) {
            findings.line(NAMESPACES, line, format!("for_children_of: {problem}"));
        }
        for problem in shown_by(&spaces, space, pids, image) {
            findings.line(NAMESPACES, line, format!("shown_by: {problem}"));
        }
        let around = spaces.above(space).and_then(|above| owners.get(&above).copied().flatten());
        if !image.is_user_within(namespace.user, around) {
            let reason = "user: the one that it lies in belongs to a user namespace that this one is not in";
            findings.line(NAMESPACES, line, reason);
        }
        owners.insert(space, namespace.user);
        if let Some(problem) = first(&spaces, space, pids, &tasks) {
            findings.line(NAMESPACES, line, format!("ids: {problem}"));
        }
    }
    for (&pid, task) in &tasks {
        let space = spaces.space(pid);
        if !spaces.is_within(space, spaces.space(task.parent)) {
            let reason = format!("parent: {} is in a pid namespace ({NAMESPACES}) that {pid} is not in", task.parent);
            findings.add(&process_file(if task.status.is_some() { task.parent } else { pid }, "process"), reason);
        }
        if let Some(thread) = task.ids.iter().find(|&&thread| spaces.space(thread) != space) {
            let reason = format!("pid: its thread {thread} is in another pid namespace ({NAMESPACES})");
            findings.add(&process_file(pid, "process"), reason);
        }
    }
    for (&pid, process) in image.processes.iter().filter(|(pid, _)| spaces.is_first(**pid)) {
        if let JobControl::Stopped(stopped) = process.process.job_control
            && stopped.signal != SIGSTOP
        {
            let reason = format!("job_control: {} does not stop the first process of a pid namespace", stopped.signal);
            findings.add(&process_file(pid, "process"), reason);
        }
    }
}

fn tasks(image: &Image) -> BTreeMap<Pid, Task> {
    let mut tasks = BTreeMap::new();
    for (&pid, process) in &image.processes {
        let ids = process.threads.keys().copied().chain([pid]).collect();
        tasks.insert(pid, Task { parent: process.process.parent, ids, status: None });
        for zombie in process.threads.values().flat_map(|thread| &thread.zombies) {
            let ids = BTreeSet::from([zombie.pid]);
            tasks.insert(zombie.pid, Task { parent: pid, ids, status: Some(zombie.status) });
        }
    }
    tasks
}

/// Every id that is that of something.
fn known(image: &Image, tasks: &BTreeMap<Pid, Task>) -> BTreeSet<Pid> {
    let processes = image.processes.values();
    let zombies = processes.clone().flat_map(|process| process.threads.values()).flat_map(|thread| &thread.zombies);
    let zombies = zombies.flat_map(|zombie| [zombie.group, zombie.session]);
    let living = processes.flat_map(|process| [process.process.group, process.process.session]);
    tasks.values().flat_map(|task| task.ids.iter().copied()).chain(zombies).chain(living).collect()
}

/// Each is given once, and stands for something of the image.
fn ids(pids: &PidNamespace, known: &BTreeSet<Pid>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut given: BTreeMap<Pid, Pid> = BTreeMap::new();
    for (&id, &inner) in &pids.ids {
        if !known.contains(&id) {
            problems.push(format!("{id} is the id of nothing in the image"));
        }
        if !(1..PID_LIMIT).contains(&inner.0) {
            problems.push(format!("{inner} for {id}: ids are 1 to {}", PID_LIMIT - 1));
        }
        if let Some(other) = given.insert(inner, id) {
            problems.push(format!("{inner} for {id}, which {other} has"));
        }
    }
    problems
}

/// Those before it have all of its ids or none.
fn nesting(spaces: &PidSpaces<'_>, space: PidSpace, pids: &PidNamespace) -> Vec<String> {
    let outer = spaces.all().take_while(|(other, _)| *other < space);
    let torn = outer.filter(|(_, outer)| {
        let shared = pids.ids.keys().filter(|id| outer.ids.contains_key(id)).count();
        shared != 0 && shared != pids.ids.len()
    });
    torn.map(|_| "some of them are in an earlier pid namespace, others are not".to_owned()).collect()
}

/// Who is in it is who has no id further in.
fn members(spaces: &PidSpaces<'_>, space: PidSpace, namespace: &UnsharedNamespace, image: &Image) -> Vec<String> {
    let listed: BTreeSet<Pid> = namespace.processes.iter().copied().collect();
    let living = image.processes.keys().copied();
    let there: BTreeSet<Pid> = living.filter(|&pid| spaces.space(pid) == Some(space)).collect();
    let absent = listed.difference(&there).map(|pid| format!("{pid} has no id in it, or one in another inside of it"));
    let missing = there.difference(&listed).map(|pid| format!("{pid} is missing, which has an id in it"));
    absent.chain(missing).collect()
}

fn for_children_of(
    spaces: &PidSpaces<'_>,
    space: PidSpace,
    pids: &PidNamespace,
    living: &BTreeSet<Pid>,
) -> Vec<String> {
    let mut problems = Vec::new();
    for &pid in &pids.for_children_of {
        if !living.contains(&pid) {
            problems.push(format!("{pid} is no thread of the image"));
        } else if spaces.of_children(pid) != Some(space) {
            problems.push(format!("{pid} is said to have its children in another too"));
        } else if spaces.space(pid) == Some(space) || !spaces.is_within(Some(space), spaces.space(pid)) {
            problems.push(format!("{pid} is in no pid namespace above it"));
        }
    }
    let given: BTreeSet<&Pid> = pids.for_children_of.iter().collect();
    if given.len() < pids.for_children_of.len() {
        problems.push("a thread is listed twice".to_owned());
    }
    let places: BTreeSet<_> = given.iter().map(|&&pid| spaces.space(pid)).collect();
    if pids.ids.is_empty() && places.len() != 1 {
        problems
            .push("nobody has an id in it, so it is that of the children of threads in one pid namespace".to_owned());
    }
    problems
}

/// File systems of /proc that can be made before anybody is in it.
fn shown_by(spaces: &PidSpaces<'_>, space: PidSpace, pids: &PidNamespace, image: &Image) -> Vec<String> {
    let mut problems = Vec::new();
    if !pids.shown_by.is_empty() && (pids.ids.is_empty() || spaces.above(space).is_some()) {
        problems.push("nobody has an id in it, or it lies in another pid namespace below the container's".to_owned());
    }
    let is_proc = |kind: &MountKind| matches!(kind, MountKind::Fresh(fresh) if fresh.file_system == "proc");
    let known = image.mounts.iter().filter(|mount| is_proc(&mount.kind)).map(|mount| mount.number);
    let known: BTreeSet<u32> = known.collect();
    for number in &pids.shown_by {
        if !known.contains(number) {
            problems.push(format!("line {number} of {MOUNTS} is no new /proc"));
        }
        let times: usize =
            spaces.all().map(|(_, pids)| pids.shown_by.iter().filter(|other| *other == number).count()).sum();
        if times > 1 {
            problems.push(format!("line {number} of {MOUNTS} is listed twice"));
        }
    }
    problems
}

/// It begins with a process 1, whose parent is in the namespace above; its end would be everybody's.
fn first(spaces: &PidSpaces<'_>, space: PidSpace, pids: &PidNamespace, tasks: &BTreeMap<Pid, Task>) -> Option<String> {
    if pids.ids.is_empty() {
        return None;
    }
    let Some((first, task)) = spaces.first(space).and_then(|first| Some((first, tasks.get(&first)?))) else {
        return Some("no process has 1 in it".to_owned());
    };
    if spaces.space(first) != Some(space) || spaces.space(task.parent) != spaces.above(space) {
        return Some(format!("{first} is its process 1, and its parent {} is not in the one above", task.parent));
    }
    let status = task.status?;
    if pids.ids.keys().any(|id| *id != first && tasks.contains_key(id)) {
        return Some(format!("{first} is its process 1 and has ended, which ends everybody in it"));
    }
    (!matches!(status & 0x7f, 0 | SIGKILL))
        .then(|| format!("{first} is its process 1 and ended by a signal that nobody can send it"))
}

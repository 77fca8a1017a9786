//! Who is whose child, group and session: ids that clone3 can be asked for, and a tree that fork and setsid can make.

use super::{Findings, task_name};
use crate::image::ProcessImage;
use crate::layout::{process_dir, process_file, thread_file};
use crate::process::Zombie;
use crate::types::Pid;
use std::collections::{BTreeMap, BTreeSet};

/// PID_MAX_LIMIT: ids are below (include/linux/threads.h, v6.18).
pub(super) const PID_LIMIT: u32 = 4 * 1024 * 1024;

/// Signals whose default action dumps core (signal(7)).
const CORE_SIGNALS: [u32; 10] = [3, 4, 5, 6, 7, 8, 11, 24, 25, 31];

/// A member of a group and session, living or dead.
struct Member {
    path: String,
    /// Counted from 0, where the path is of a file of lines.
    line: Option<u64>,
    pid: Pid,
    group: Pid,
    session: Pid,
}

type Processes = BTreeMap<Pid, ProcessImage>;

/// `has_init`: their pid namespace is the container's own, and begins with the root of the tree.
pub(super) fn check(processes: &Processes, has_init: bool, findings: &mut Findings) {
    ids(processes, findings);
    parents(processes, has_init, findings);
    let members = members(processes);
    sessions(&members, findings);
    dead_leaders(processes, &members, findings);
}

/// Every zombie with the thread that has it and its line, counted from 0.
fn zombies(processes: &Processes) -> impl Iterator<Item = (Pid, Pid, u64, &Zombie)> {
    processes.iter().flat_map(|(&pid, process)| {
        process.threads.iter().flat_map(move |(&tid, thread)| {
            (0..).zip(&thread.zombies).map(move |(index, zombie)| (pid, tid, index, zombie))
        })
    })
}

fn zombie_path(pid: Pid, tid: Pid) -> String {
    thread_file(pid, tid, "wait.zombies")
}

/// Ids in range and given once; each process at its own place and with its leader.
fn ids(processes: &Processes, findings: &mut Findings) {
    let possible = |pid: Pid| (1..PID_LIMIT).contains(&pid.0);
    let mut taken = BTreeMap::new();
    for (&pid, process) in processes {
        let own = process_dir(pid);
        if process.process.pid != pid {
            let path = process_file(pid, "process");
            findings.add(&path, format!("pid: {} in the directory of process {pid}", process.process.pid));
        }
        let ended = process.process.first_thread_ended.is_some();
        if !ended && !process.threads.contains_key(&pid) {
            findings.add(&process_file(pid, "thread.list"), format!("thread {pid}, the group leader, is missing"));
        }
        if ended {
            ended_leader(pid, process, findings);
            // One that is listed all the same is told already.
            if !process.threads.contains_key(&pid) {
                taken.insert(pid, own.clone());
            }
        }
        for &tid in process.threads.keys() {
            if !possible(tid) {
                findings.add(&own, format!("thread {tid}: ids are 1 to {}", PID_LIMIT - 1));
            }
            if let Some(other) = taken.insert(tid, own.clone()) {
                findings.add(&own, format!("thread {tid} has the id of a thread of {other}"));
            }
        }
    }
    for (pid, tid, index, zombie) in zombies(processes) {
        let path = zombie_path(pid, tid);
        if !possible(zombie.pid) {
            findings.line(&path, index, format!("pid {}: ids are 1 to {}", zombie.pid, PID_LIMIT - 1));
        }
        if let Some(other) = taken.insert(zombie.pid, path.clone()) {
            findings.line(&path, index, format!("pid {} is taken by a task of {other}", zombie.pid));
        }
        if let Some(problem) = task_name(&zombie.name) {
            findings.line(&path, index, problem);
        }
        if !wait_status(zombie.status) {
            findings.line(&path, index, format!("status {:#x} is none that wait(2) gives for an end", zombie.status));
        }
    }
}

/// Of a process whose first thread has ended: others go on, and that one is not among them.
fn ended_leader(pid: Pid, process: &ProcessImage, findings: &mut Findings) {
    let list = process_file(pid, "thread.list");
    if process.threads.is_empty() {
        findings.add(&list, "no thread is left, and process says that others go on than the first");
    } else if process.threads.contains_key(&pid) {
        findings.add(&list, format!("thread {pid} is listed, and process says that it has ended (first_thread_ended)"));
    }
}

/// Whether it is the status of a task that exited or was killed (bit 7: with a core).
fn wait_status(status: u32) -> bool {
    match status & 0x7f {
        0 => status & !0xff00 == 0,
        signal => signal <= 64 && status & !0xff == 0 && (status & 0x80 == 0 || CORE_SIGNALS.contains(&signal)),
    }
}

/// One root where a pid namespace begins with it, every other process under a parent that is there, no circles.
fn parents(processes: &Processes, has_init: bool, findings: &mut Findings) {
    let mut roots = Vec::new();
    for (&pid, process) in processes {
        let parent = process.process.parent;
        let path = process_file(pid, "process");
        if parent.0 == 0 {
            roots.push(pid);
        } else if !processes.contains_key(&parent) {
            findings.add(&path, format!("parent: there is no process {parent}"));
            continue;
        }
        let Some(thread) = process.process.parent_thread else { continue };
        if !processes.get(&parent).is_some_and(|parent| parent.threads.contains_key(&thread)) {
            findings.add(&path, format!("parent_thread: process {parent} has no thread {thread}"));
        } else if thread == parent {
            findings.add(&path, format!("parent_thread: {thread}, which null stands for"));
        }
    }
    match roots[..] {
        [] if processes.is_empty() => findings.add(crate::layout::MANIFEST, "paths: an image has at least one process"),
        _ if !has_init => {
            if processes.contains_key(&Pid(1)) {
                findings.add(
                    &process_file(Pid(1), "process"),
                    "pid: 1 in a pid namespace shared with the host is the host's",
                );
            }
        }
        [] | [_] => {}
        [first, ..] => {
            for &pid in &roots[1..] {
                let reason = format!("parent: 0, which is already said by process {first}: there is one root");
                findings.add(&process_file(pid, "process"), reason);
            }
        }
    }
    circles(processes, findings);
}

/// Follows every process up, each only once.
fn circles(processes: &Processes, findings: &mut Findings) {
    let mut known = BTreeSet::new();
    for &start in processes.keys() {
        let mut way = BTreeSet::new();
        let mut at = start;
        while let Some(process) = processes.get(&at).filter(|_| !known.contains(&at)) {
            if !way.insert(at) {
                findings.add(&process_file(at, "process"), "parent: it is its own ancestor");
                break;
            }
            at = process.process.parent;
        }
        known.extend(way);
    }
}

fn members(processes: &Processes) -> Vec<Member> {
    let living = processes.iter().map(|(&pid, process)| Member {
        path: process_file(pid, "process"),
        line: None,
        pid,
        group: process.process.group,
        session: process.process.session,
    });
    let dead = zombies(processes).map(|(pid, tid, index, zombie)| Member {
        path: zombie_path(pid, tid),
        line: Some(index),
        pid: zombie.pid,
        group: zombie.group,
        session: zombie.session,
    });
    living.chain(dead).collect()
}

impl Member {
    fn refuse(&self, findings: &mut Findings, reason: impl std::fmt::Display) {
        match self.line {
            Some(index) => findings.line(&self.path, index, reason),
            None => findings.add(&self.path, reason.to_string()),
        }
    }
}

/// setsid makes a leader of a new group in a new session, which then can change neither; setpgid moves within a session.
fn sessions(members: &[Member], findings: &mut Findings) {
    let by_pid: BTreeMap<Pid, &Member> = members.iter().map(|member| (member.pid, member)).collect();
    let mut session_of_group: BTreeMap<Pid, &Member> = BTreeMap::new();
    for member in members {
        let Member { pid, group, session, .. } = member;
        if group.0 == 0 || session.0 == 0 {
            member.refuse(findings, "group, session: 0 is one that lies outside of the container");
            continue;
        }
        if session == pid && group != pid {
            member.refuse(findings, format!("group: {group}, but a session leader leads its own group"));
            continue;
        }
        if let Some(leader) = by_pid.get(session).filter(|leader| leader.session != *session) {
            let theirs = leader.session;
            member.refuse(findings, format!("session: {session}, but process {session} is in session {theirs}"));
            continue;
        }
        let first = session_of_group.entry(*group).or_insert_with(|| by_pid.get(group).copied().unwrap_or(member));
        if first.session != *session {
            let (other, theirs) = (first.pid, first.session);
            let reason = format!("session: {session}, but its group {group} is in session {theirs} by process {other}");
            member.refuse(findings, reason);
        }
    }
}

/// Ids that only live on as a group's or session's are made by a helper, which needs the id for itself for a while.
fn dead_leaders(processes: &Processes, members: &[Member], findings: &mut Findings) {
    let threads: BTreeMap<Pid, Pid> = processes
        .iter()
        .flat_map(|(&pid, process)| process.threads.keys().filter(move |&&tid| tid != pid).map(move |&tid| (tid, pid)))
        .collect();
    for member in members {
        for (name, id) in [("group", member.group), ("session", member.session)] {
            if let Some(process) = threads.get(&id).filter(|_| !processes.contains_key(&id)) {
                member.refuse(findings, format!("{name}: {id} is the id of a thread of process {process}"));
            } else if id.0 >= PID_LIMIT {
                member.refuse(findings, format!("{name}: {id}: ids are 1 to {}", PID_LIMIT - 1));
            }
        }
    }
}

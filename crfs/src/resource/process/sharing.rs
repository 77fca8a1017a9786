//! Objects that processes share without being threads of each other: made by clone(2) with single flags.
//!
//! A child has them from its parent, so one that shares with somebody else (its parent died, or called unshare or exec) cannot be
//! made again.

use super::super::Findings;
use super::super::subject::{self, Process, Subjects};
use crate::failure::{Doing, Failure};
use crfs_sys::kcmp::{self, Comparison, Object};
use image_format::process::Shares;
use image_format::{Pid, layout};
use nix::errno::Errno;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// A kind of object, how it is called, and where it stands in the record.
type Part = (Object, &'static str, fn(&mut Shares) -> &mut Option<Pid>);

const PARTS: [Part; 4] = [
    (Object::Vm, "its memory", |shares| &mut shares.memory),
    (Object::Files, "its descriptor table", |shares| &mut shares.descriptors),
    (Object::Fs, "its working directory, root and umask", |shares| &mut shares.directories),
    (Object::Sighand, "its signal actions", |shares| &mut shares.signal_actions),
];

/// What each process has from another; those that have nothing are left out.
pub type Sharing = BTreeMap<Pid, Shares>;

/// Finds them by sorting the processes by the kernel's order of each object, where equals come to stand side by side.
///
/// # Errors
/// When the kernel refuses to compare; a process that is gone compares as different.
pub fn sharing(subjects: &Subjects, findings: &mut Findings) -> Result<Sharing, Failure> {
    let mut sharing = Sharing::new();
    for (part, words, field) in PARTS {
        let processes = subjects.processes.iter().map(|process| (process, process.alive().host)).collect();
        for mut members in groups(part, processes)? {
            members.sort_by_key(|process| process.pid);
            let is_root = |process: &&Process| !given_by_parent(process, &members, subjects);
            let roots: Vec<Pid> = members.iter().copied().filter(is_root).map(|process| process.pid).collect();
            let Some((&owner, others)) = roots.split_first() else { continue };
            for &other in others {
                findings.block(
                    layout::process_file(other, "process"),
                    format!("shares {words} with process {owner} without being a thread or a child of it (clone)"),
                    "Use fork or threads",
                );
            }
            for member in members.iter().filter(|member| !roots.contains(&member.pid)) {
                *field(sharing.entry(member.pid).or_default()) = Some(owner);
            }
        }
    }
    Ok(sharing)
}

/// Whether a process can have come to share with these by its birth: its parent is among them, and it was born into its session or
/// began one.
fn given_by_parent(process: &Process, members: &[&Process], subjects: &Subjects) -> bool {
    let parent = subjects.ids.get(&process.leader().stat.ppid);
    let session = |process: &Process| process.leader().status.ns_sid.last().copied();
    let parent = parent.and_then(|parent| members.iter().find(|member| member.pid == *parent));
    parent.is_some_and(|parent| session(process) == session(parent) || session(process) == Some(process.pid.0))
}

/// Those of `tasks`, each with its id on the host, that have the same object, two or more.
pub(super) fn groups<T: Copy>(part: Object, tasks: Vec<(T, i32)>) -> Result<Vec<Vec<T>>, Failure> {
    let raw = nix::unistd::Pid::from_raw;
    let mut failed = None;
    let mut compare = |(_, a): (T, i32), (_, b): (T, i32)| {
        match kcmp::compare(part, raw(a), raw(b)) {
            // Vanished, or half gone: what is not there is not shared.
            Err(Errno::ESRCH) => a.cmp(&b),
            Err(errno) => {
                failed = failed.or(Some((a, errno)));
                a.cmp(&b)
            }
            Ok(comparison) => comparison.ordering().unwrap_or(Ordering::Less),
        }
    };
    let mut sorted = tasks;
    // A merge sort of our own kind of order: the standard sort may panic when tasks end meanwhile and the order breaks.
    merge_sort(&mut sorted, &mut compare);
    if let Some((host, errno)) = failed {
        return Err(errno).doing(|| format!("process {host} of the host: comparing {part:?} with other tasks"));
    }
    // Of two that are on their way out neither has any.
    let gone = |host: i32| subject::is_gone(&format!("/proc/{host}"));
    let same = |&(_, a): &(T, i32), &(_, b): &(T, i32)| {
        kcmp::compare(part, raw(a), raw(b)) == Ok(Comparison::Equal) && !gone(a) && !gone(b)
    };
    let runs = sorted.chunk_by(same).filter(|run| run.len() > 1);
    Ok(runs.map(|run| run.iter().map(|&(task, _)| task).collect()).collect())
}

fn merge_sort<T: Copy>(items: &mut [T], compare: &mut impl FnMut(T, T) -> Ordering) {
    if items.len() < 2 {
        return;
    }
    let (left, right) = items.split_at_mut(items.len() / 2);
    merge_sort(left, compare);
    merge_sort(right, compare);
    let (left, right) = (left.to_vec(), right.to_vec());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    for slot in items {
        let take_right = match (left.peek(), right.peek()) {
            (Some(&a), Some(&b)) => compare(a, b) == Ordering::Greater,
            (None, _) => true,
            (_, None) => false,
        };
        if let Some(next) = if take_right { right.next() } else { left.next() } {
            *slot = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorting_orders_and_survives_a_broken_order() {
        let mut numbers = [5, 3, 9, 3, 1, 7, 7, 0];
        merge_sort(&mut numbers, &mut |a: i32, b| a.cmp(&b));
        assert_eq!(numbers, [0, 1, 3, 3, 5, 7, 7, 9]);
        merge_sort(&mut numbers, &mut |_, _| Ordering::Greater);
        numbers.sort_unstable();
        assert_eq!(numbers, [0, 1, 3, 3, 5, 7, 7, 9]);
    }
}

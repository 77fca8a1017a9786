//! Objects that processes share without being threads of each other: made by clone(2) with single flags.
//!
//! A child has them from who cloned it, which is not always its parent: see [`image_format::sharing`].

use super::super::Findings;
use super::super::subject::{self, Subjects};
use crate::failure::{Doing, Failure};
use crfs_kstate::Shared;
use crfs_sys::kcmp::{self, Comparison, Object};
use image_format::sharing::{Family, PARTS, Part};
use image_format::{Pid, ProcessImage, layout};
use nix::errno::Errno;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// The kernel's objects, each with the part of a record that tells of it, and how people call it.
const OBJECTS: [(Object, Address, &str, &str); 4] = [
    (Object::Vm, Shared::memory, "memory", "its memory"),
    (Object::Files, Shared::descriptors, "descriptors", "its descriptor table"),
    (Object::Fs, Shared::directories, "directories", "its working directory, root and umask"),
    (Object::Sighand, Shared::signal_actions, "signal_actions", "its signal actions"),
];

/// Where the kernel keeps an object.
type Address = fn(&Shared) -> u64;

/// Processes that have one object in common.
#[derive(Clone, Debug)]
pub struct Sharers {
    part: Part,
    words: &'static str,
    /// Ascending.
    members: Vec<Pid>,
}

/// Finds them by where the kernel keeps each object. Where that was not read, by sorting the processes by the kernel's order, where equals
/// come to stand side by side.
///
/// # Errors
/// When the kernel refuses to compare; a process that is gone compares as different.
pub fn sharing(subjects: &Subjects) -> Result<Vec<Sharers>, Failure> {
    let mut sharing = Vec::new();
    for (object, address, name, words) in OBJECTS {
        let Some(part) = PARTS.into_iter().find(|part| part.name == name) else { continue };
        let processes = || subjects.processes.iter().map(|process| (process.pid, process.alive()));
        let addresses = processes().map(|(pid, thread)| Some((pid, address(&thread.record.as_ref()?.shared))));
        let found = match addresses.collect() {
            Some(addresses) => at_one_place(addresses),
            None => groups(object, processes().map(|(pid, thread)| (pid, thread.host)).collect())?,
        };
        for mut members in found {
            members.sort();
            sharing.push(Sharers { part, words, members });
        }
    }
    Ok(sharing)
}

/// Whether a process shares memory with one of a lower pid. Whose the image says it is turns out later ([`share`]): mostly that one's.
#[must_use]
pub fn has_memory_of_another(sharing: &[Sharers], pid: Pid) -> bool {
    let mut memories = sharing.iter().filter(|sharers| sharers.part.name == "memory");
    memories.any(|sharers| sharers.members.iter().skip(1).any(|&member| member == pid))
}

/// Says in the records whose each shared object is: that of a process which the others can have it from.
pub fn share(
    sharing: &[Sharers],
    subjects: &Subjects,
    processes: &mut BTreeMap<Pid, ProcessImage>,
    findings: &mut Findings,
) {
    let first: BTreeSet<Pid> = subjects
        .processes
        .iter()
        .filter(|process| process.leader().own_id() == Pid(1))
        .map(|process| process.pid)
        .collect();
    let mut family = Family::of(processes, |pid| first.contains(&pid));
    for Sharers { part, members, .. } in sharing {
        let with_owner = |&owner: &Pid| family.with_owner(*part, owner, members);
        let all_made = |family: &Family| members.iter().all(|&member| family.maker(member).is_some());
        let Some(lowest) = members.first() else { continue };
        family = members.iter().map(with_owner).find(all_made).unwrap_or_else(|| with_owner(lowest));
    }
    for Sharers { part, words, members } in sharing {
        for &member in members.iter().filter(|&&member| family.maker(member).is_none()) {
            let Some(owner) = (part.of)(&family.shares(member)) else { continue };
            findings.block(
                layout::process_file(member, "process"),
                format!("shares {words} with process {owner}; neither its parent nor that one can have cloned it"),
                "Use fork or threads",
            );
        }
    }
    for (&pid, image) in processes {
        image.process.shares = family.shares(pid);
        if image.process.shares.signal_actions.is_some() {
            image.actions.clear();
        }
    }
}

/// Those that have the same address, two or more.
fn at_one_place(addresses: Vec<(Pid, u64)>) -> Vec<Vec<Pid>> {
    let mut places: BTreeMap<u64, Vec<Pid>> = BTreeMap::new();
    for (pid, address) in addresses.into_iter().filter(|&(_, address)| address != 0) {
        places.entry(address).or_default().push(pid);
    }
    places.into_values().filter(|members| members.len() > 1).collect()
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
    fn who_has_the_same_address_shares() {
        let addresses = vec![(Pid(1), 8), (Pid(2), 0), (Pid(3), 16), (Pid(4), 8), (Pid(5), 0)];
        assert_eq!(at_one_place(addresses), [[Pid(1), Pid(4)]]);
    }

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

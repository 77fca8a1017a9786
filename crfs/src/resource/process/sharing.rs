//! Objects that processes share without being threads of each other: made by clone(2) with single flags. Not carried yet.

use super::super::Findings;
use super::super::subject::{self, Process, Subjects};
use crate::failure::{Doing, Failure};
use crfs_sys::kcmp::{self, Comparison, Object};
use image_format::layout;
use nix::errno::Errno;
use nix::unistd::Pid;
use std::cmp::Ordering;

const PARTS: [(Object, &str); 4] = [
    (Object::Vm, "its memory"),
    (Object::Files, "its descriptor table"),
    (Object::Fs, "its working directory, root and umask"),
    (Object::Sighand, "its signal actions"),
];

/// Finds them by sorting the processes by the kernel's order of each object, where equals come to stand side by side.
///
/// # Errors
/// When the kernel refuses to compare; a process that is gone compares as different.
pub fn survey(subjects: &Subjects, findings: &mut Findings) -> Result<(), Failure> {
    for (part, words) in PARTS {
        let mut failed = None;
        let mut compare = |a: &Process, b: &Process| {
            match kcmp::compare(part, Pid::from_raw(a.host), Pid::from_raw(b.host)) {
                // Vanished, or half gone: what is not there is not shared.
                Err(Errno::ESRCH) => a.host.cmp(&b.host),
                Err(errno) => {
                    failed = failed.or(Some((a.pid, errno)));
                    a.host.cmp(&b.host)
                }
                Ok(comparison) => comparison.ordering().unwrap_or(Ordering::Less),
            }
        };
        let mut sorted: Vec<&Process> = subjects.processes.iter().collect();
        // A merge sort of our own kind of order: the standard sort may panic when tasks end meanwhile and the order breaks.
        merge_sort(&mut sorted, &mut compare);
        for pair in sorted.windows(2) {
            let same = kcmp::compare(part, Pid::from_raw(pair[0].host), Pid::from_raw(pair[1].host));
            // Of two that are on their way out neither has any.
            let gone = |process: &Process| subject::is_gone(&format!("/proc/{}", process.host));
            if same == Ok(Comparison::Equal) && !gone(pair[0]) && !gone(pair[1]) {
                let (first, second) = (pair[0].pid.min(pair[1].pid), pair[0].pid.max(pair[1].pid));
                findings.block(
                    layout::process_file(second, "process"),
                    format!("shares {words} with process {first} without being a thread of it (clone, vfork)"),
                    "Use fork or threads",
                );
            }
        }
        if let Some((pid, errno)) = failed {
            let object = layout::process_file(pid, "process");
            return Err(errno).doing(|| format!("{object}: comparing {part:?} with other processes"));
        }
    }
    Ok(())
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

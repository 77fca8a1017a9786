//! `namespaces`, lines of type user: maps that the kernel takes, and processes that can enter one last of all.

use super::Findings;
use crate::image::Image;
use crate::layout::{MANIFEST, NAMESPACES, POSIX_MQ, file_entry, process_file};
use crate::manifest::NamespaceKind;
use crate::namespaces::NamespaceContent;
use crate::user_namespaces::{Hindrance, IdRange, UserNamespace, inside};
use std::collections::BTreeSet;

/// UID_GID_MAP_MAX_EXTENTS (include/linux/user_namespace.h, v6.18).
const MOST_RANGES: usize = 340;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    let users: Vec<&UserNamespace> = image.user_namespaces().map(|(_, user)| user).collect();
    let (mut before, mut taken) = (0, BTreeSet::new());
    for (line, namespace) in (0..).zip(&image.namespaces) {
        let is_user = matches!(namespace.content, NamespaceContent::User(_));
        // One lies in an earlier one.
        let known = if is_user { &users[..before] } else { &users[..] };
        before += usize::from(is_user);
        let above =
            namespace.user.map(|number| usize::try_from(number).ok()?.checked_sub(1).and_then(|at| known.get(at)));
        if above == Some(None) {
            let earlier = if is_user { "earlier " } else { "" };
            findings.line(NAMESPACES, line, format!("user: there is no such {earlier}line of type user"));
        }
        let NamespaceContent::User(user) = &namespace.content else { continue };
        let UserNamespace { owner, uid_map, gid_map, .. } = user;
        for reason in of_container(image, user, &mut taken) {
            findings.line(NAMESPACES, line, format!("container: {reason}"));
        }
        if let Some(Some(above)) = above {
            for (name, map, around) in [("uid_map", uid_map, &above.uid_map), ("gid_map", gid_map, &above.gid_map)] {
                for range in map.iter().filter(|range| !around.iter().any(|other| range.is_within(other))) {
                    let IdRange { inside, outside, count } = range;
                    let reason =
                        format!("{name}: {inside} {outside} {count} is in no range of the one that it lies in");
                    findings.line(NAMESPACES, line, reason);
                }
            }
            if inside(&above.uid_map, *owner).is_none() || above.gid_map.is_empty() {
                findings.line(NAMESPACES, line, format!("owner: {owner} is nobody in the one that it lies in"));
            }
        }
        for (name, map) in [("uid_map", uid_map), ("gid_map", gid_map)] {
            if let Some(problem) = problem(map) {
                findings.line(NAMESPACES, line, format!("{name}: {problem}"));
            }
        }
        let directories = image.processes.values().filter_map(|process| process.process.shares.directories);
        let shared: BTreeSet<_> = directories.collect();
        for (pid, process) in namespace.processes.iter().filter_map(|pid| Some((pid, image.processes.get(pid)?))) {
            let path = process_file(*pid, "process");
            if process.process.shares.directories.is_some() || shared.contains(pid) {
                let reason = format!("shares.directories: one that is in a user namespace ({NAMESPACES}) shares none");
                findings.add(&path, reason);
            }
        }
    }
    for pid in image.threaded_in_user_namespaces() {
        for hindrance in image.hindrances(pid) {
            let reason =
                format!("pid: it is in a user namespace ({NAMESPACES}) with several threads, {}", told(hindrance));
            findings.add(&process_file(pid, "process"), reason);
        }
    }
}

/// What is wrong with what belongs to one of the container's own namespaces. `taken` are those of earlier lines.
fn of_container(image: &Image, user: &UserNamespace, taken: &mut BTreeSet<NamespaceKind>) -> Vec<String> {
    let problem = |&kind: &NamespaceKind| match kind {
        NamespaceKind::Pid => Some("pid never belongs to one".to_owned()),
        kind if image.manifest.container.shares(kind) => {
            Some(format!("{} is shared with the host ({MANIFEST})", kind.name()))
        }
        kind if !taken.insert(kind) => Some(format!("{} belongs to another one too", kind.name())),
        NamespaceKind::Ipc if user.keeps_queues_out() && image.queues.iter().any(|queue| queue.namespace == 0) => {
            Some(format!(
                "ipc belongs to it, where the container's root is nobody, and there are message queues ({POSIX_MQ})"
            ))
        }
        _ => None,
    };
    user.container.iter().filter_map(problem).collect()
}

fn told(hindrance: Hindrance) -> String {
    match hindrance {
        Hindrance::FirstEnded => "and first_thread_ended is not null".to_owned(),
        Hindrance::Apart(tid) => format!("and {tid} has fds or directories of its own"),
        Hindrance::OtherUser(tid) => format!("and uid, gid, groups or login_uid of {tid} are not those of the first"),
        Hindrance::ForChildren => "and another pid namespace for its children".to_owned(),
        Hindrance::FileOfThread(id) => format!("and {} is a file of one of them", file_entry(id)),
        Hindrance::OtherOwner(id) => {
            format!("and nobody else has {} open, whose owner was named by another user", file_entry(id))
        }
    }
}

/// Ranges that have ids and share none with each other (map_write in kernel/user_namespace.c, v6.18).
fn problem(map: &[IdRange]) -> Option<String> {
    if map.len() > MOST_RANGES {
        return Some(format!("{} ranges: {MOST_RANGES} at most", map.len()));
    }
    // The last id is none.
    let is_range = |first: u32, count: u32| count > 0 && first.checked_add(count).is_some();
    let bad = |range: &&IdRange| !is_range(range.inside, range.count) || !is_range(range.outside, range.count);
    if let Some(IdRange { inside, outside, count }) = map.iter().find(bad) {
        return Some(format!("{inside} {outside} {count} is no range of ids"));
    }
    let firsts: [fn(&IdRange) -> u32; 2] = [|range| range.inside, |range| range.outside];
    for first in firsts {
        let mut sorted: Vec<(u32, u32)> = map.iter().map(|range| (first(range), range.count)).collect();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].0 + pair[0].1 > pair[1].0) {
            return Some(format!("two ranges have the id {}", pair[1].0));
        }
    }
    None
}

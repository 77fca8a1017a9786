//! inotify instances and fanotify groups.

use super::absolute;
use crate::fanotify::{
    BY_HANDLE, CLASSES, EVENT_FLAGS, EVENTS, EVICTABLE, Fanotify, GROUP_FLAGS, MARK_FLAGS, Marked, PERMISSIONS,
    PRIVILEGED, UNLIMITED_QUEUE,
};
use crate::files::Inotify;
use crate::types::Hex;
use std::collections::BTreeSet;

pub(super) fn inotify(instance: &Inotify) -> Vec<Option<String>> {
    const LAST_WD: u32 = i32::MAX.unsigned_abs();
    // IN_ALL_EVENTS, IN_EXCL_UNLINK, IN_ONESHOT: what fdinfo shows (fs/notify/fdinfo.c, v6.18).
    const MASK: u64 = 0xfff | 1 << 26 | 1 << 31;
    let number = |wd: u32| (wd == 0 || wd > LAST_WD).then(|| format!("{wd} is no number from 1 to {LAST_WD}"));
    let mut problems = vec![number(instance.next_wd).map(|problem| format!("next_wd: {problem}"))];
    let mut seen = BTreeSet::new();
    for watch in &instance.watches {
        let within = |problem: String| format!("watch {}: {problem}", watch.wd);
        problems.push(number(watch.wd).map(within));
        problems.push((!seen.insert(watch.wd)).then(|| within("it stands there twice".to_owned())));
        problems.push(absolute(&watch.path).map(|problem| within(format!("path: {problem}"))));
        let fits = watch.mask.0 != 0 && watch.mask.0 & !MASK == 0;
        problems.push(
            (!fits).then(|| within(format!("mask {}: inotify_add_watch(2) takes bits of {MASK:#x}", watch.mask))),
        );
    }
    problems
}

pub(super) fn fanotify(group: &Fanotify) -> Vec<Option<String>> {
    let Fanotify { flags, event_flags, unprivileged, marks, unread } = group;
    let refuse = |bad: bool, problem: String| bad.then_some(problem);
    let mut problems = vec![
        bits("flags", *flags, GROUP_FLAGS, "fanotify_init(2)"),
        bits("event_flags", *event_flags, EVENT_FLAGS, "fanotify_init(2)"),
        refuse(flags.0 & CLASSES == CLASSES, format!("flags {flags}: a group is of one class")),
        refuse(
            *unprivileged && (flags.0 & PRIVILEGED != 0 || flags.0 & BY_HANDLE == 0),
            format!(
                "flags {flags}: an unprivileged group has FAN_REPORT_FID or FAN_REPORT_DIR_FID and none of {PRIVILEGED:#x}"
            ),
        ),
        refuse(
            *unread && flags.0 & UNLIMITED_QUEUE != 0,
            "unread: nothing can stand for the events of a queue without limit".to_owned(),
        ),
    ];
    let mut seen = BTreeSet::new();
    for (number, mark) in (1..).zip(marks) {
        let within = |problem: String| format!("mark {number}: {problem}");
        let own = [
            absolute(&mark.path).map(|problem| format!("path: {problem}")),
            bits("mask", mark.mask, EVENTS, "what can be carried of fanotify_mark(2)"),
            bits("ignored_mask", mark.ignored_mask, EVENTS | PERMISSIONS, "what can be carried of fanotify_mark(2)"),
            refuse(mark.mask.0 | mark.ignored_mask.0 == 0, "it neither tells nor ignores anything".to_owned()),
            bits("flags", mark.flags, MARK_FLAGS, "a mark"),
            refuse(
                mark.flags.0 & EVICTABLE != 0 && mark.on != Marked::Inode,
                format!("flags {}: only a mark of an inode can be evictable", mark.flags),
            ),
            refuse(!seen.insert((mark.on, &mark.path)), format!("{} is marked twice", mark.path)),
        ];
        problems.extend(own.into_iter().map(|problem| problem.map(within)));
    }
    problems
}

/// For a value with other bits than these, which `whose` has.
fn bits(name: &str, value: Hex, known: u64, whose: &str) -> Option<String> {
    (value.0 & !known != 0).then(|| format!("{name} {value}: bits of {whose} are {known:#x}"))
}

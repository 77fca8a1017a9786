//! `files/locks`: locks of descriptions that are there, by processes that have them.

use super::Findings;
use crate::files::{FileKind, OpenFlags};
use crate::image::Image;
use crate::layout::{LOCKS, file_entry};
use crate::locks::{Lock, LockKind};

pub(super) fn check(image: &Image, findings: &mut Findings) {
    for (index, lock) in (0..).zip(&image.locks) {
        for problem in one(image, lock) {
            findings.line(LOCKS, index, problem);
        }
    }
}

fn one(image: &Image, lock: &Lock) -> Vec<String> {
    let Lock { file, kind, process, exclusive, start, end } = *lock;
    let mut problems = Vec::new();
    match image.files.get(&file) {
        None => problems.push(format!("there is no {}", file_entry(file))),
        Some(description) => {
            if !description.kind.can_be_locked() {
                problems.push(format!("{} is no file that can be locked", file_entry(file)));
            }
            if kind == LockKind::Lease && !matches!(description.kind, FileKind::Regular(_) | FileKind::Unnamed(_)) {
                problems.push(format!("{} is no regular file, and there are leases of no others", file_entry(file)));
            }
            let writes = description.flags.0 & (OpenFlags::O_WRONLY.0 | OpenFlags::O_RDWR.0) != 0;
            let ranged = matches!(kind, LockKind::Posix | LockKind::Ofd);
            if ranged && exclusive && !writes {
                problems.push(format!("exclusive, and {} is not open for writing", file_entry(file)));
            }
        }
    }
    let has = image.tables().any(|table| table.owner == process && table.fds.iter().any(|fd| fd.file == file));
    if image.files.contains_key(&file) && !has {
        problems.push(format!("process {process} does not have {} open", file_entry(file)));
    }
    let last = end.unwrap_or(i64::MAX.cast_unsigned());
    if start > last || i64::try_from(last).is_err() {
        problems.push(format!("bytes {start} to {last}: no range of a file"));
    }
    if matches!(kind, LockKind::Flock | LockKind::Lease) && (start, end) != (0, None) {
        problems.push("start, end: such a lock is on the whole file".to_owned());
    }
    problems
}

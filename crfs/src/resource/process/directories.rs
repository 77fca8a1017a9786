//! Threads that stand in directories of their own: unshare(2) with CLONE_FS.

use super::super::Findings;
use super::super::container::Place;
use super::super::proc::Proc;
use super::super::subject::{Process, Thread};
use crate::failure::{Doing, Failure};
use crfs_sys::kcmp::{self, Comparison, Object};
use image_format::thread::Directories;
use image_format::{Octal, layout};
use nix::unistd::Pid;

/// What a thread has for itself; None for one that shares with the first thread.
///
/// # Errors
/// When the thread is gone.
pub fn own(
    process: &Process,
    thread: &Thread,
    place: &Place,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<Option<Directories>, Failure> {
    if thread.host == process.alive().host || thread.shares_all_with(process.alive()) {
        return Ok(None);
    }
    let object = layout::thread_file(process.pid, thread.tid, "attr");
    if is_same(process.alive(), thread, &object)? {
        return Ok(None);
    }
    // Each gets its own again: that two have the same, and not the first one's, would be lost.
    let others = process.threads.iter().filter(|other| other.host != process.host && !other.has_ended());
    for other in others.filter(|other| other.tid < thread.tid) {
        if !other.shares_all_with(process.alive()) && is_same(other, thread, &object)? {
            findings.block(
                &object,
                format!(
                    "has its working directory, root and umask in common with thread {} but not with the first",
                    other.tid
                ),
                "Call unshare in each thread that is to have its own",
            );
        }
    }
    let task = format!("{}/task/{}", process.host, thread.host);
    let (cwd, cwd_deleted) = place.working_directory(proc, &task, &object, findings)?;
    Ok(Some(Directories {
        cwd,
        cwd_deleted,
        root: place.path(proc, &format!("{task}/root"), &object, "the root directory", findings)?,
        umask: Octal(thread.status.umask.unwrap_or(0)),
    }))
}

fn is_same(one: &Thread, other: &Thread, object: &str) -> Result<bool, Failure> {
    let same = kcmp::compare(Object::Fs, Pid::from_raw(one.host), Pid::from_raw(other.host));
    Ok(same.doing(|| format!("{object}: comparing Fs with other threads"))? == Comparison::Equal)
}

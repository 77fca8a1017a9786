//! Requests under way, and rings that are mapped alone.

use super::Rings;
use crate::failure::Failure;
use crate::resource::Findings;
use crate::resource::kernel::Kernel;
use crate::resource::subject::Subjects;
use crfs_kstate::Task;
use image_format::files::{File, FileKind};
use image_format::memory::Backing;
use image_format::{FileId, Pid, ProcessImage, layout};
use std::collections::BTreeMap;

/// Whether any thread has requests under way, which may end when the threads are back in the freezer.
///
/// # Errors
/// When a thread is gone.
pub fn under_way(subjects: &Subjects, kernel: &mut Kernel) -> Result<bool, Failure> {
    for process in &subjects.processes {
        let path = layout::process_file(process.pid, "attr");
        for thread in process.threads.iter().filter(|thread| !thread.has_ended()) {
            let asked = kernel.ask(thread.host, &path, |state, task| match state.uses_io_uring(task)? {
                true => state.io_requests(task).map(|requests| requests.under_way > 0),
                false => Ok(false),
            });
            if asked?.unwrap_or(false) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Says of each ring which thread it belongs to. One that has ended, or is not the container's, is none.
pub fn name_issuers(subjects: &Subjects, rings: &Rings, kernel: &Kernel, files: &mut BTreeMap<FileId, File>) {
    let (_, tasks) = kernel.parts();
    let alive = || subjects.processes.iter().flat_map(|process| &process.threads).filter(|thread| !thread.has_ended());
    let address = |host| tasks.get(host).map(Task::address);
    for file in files.values_mut() {
        let FileKind::IoUring(ring) = &mut file.kind else { continue };
        let issuer = rings.issuer(ring.ring);
        let mut threads = alive().filter(|thread| issuer != 0 && address(&thread.host) == Some(issuer));
        ring.issuer = threads.next().map(|thread| thread.tid);
    }
}

/// Obstacles for requests that are still under way, for what threads have registered, and for rings that no descriptor leads to.
///
/// # Errors
/// When a thread is gone.
pub fn report(
    subjects: &Subjects,
    processes: &BTreeMap<Pid, ProcessImage>,
    rings: &Rings,
    kernel: &mut Kernel,
    findings: &mut Findings,
) -> Result<(), Failure> {
    for process in &subjects.processes {
        for thread in process.threads.iter().filter(|thread| !thread.has_ended()) {
            let path = layout::thread_file(process.pid, thread.tid, "attr");
            if !kernel.ask(thread.host, &path, crfs_kstate::KernelState::uses_io_uring)?.unwrap_or(false) {
                continue;
            }
            let Some(requests) = kernel.ask(thread.host, &path, crfs_kstate::KernelState::io_requests)? else {
                continue;
            };
            if requests.under_way > 0 {
                findings.block(
                    &path,
                    format!("has requests of io_uring under way: {}", requests.under_way),
                    "Try again when they have completed; those that wait for a connection, a pipe or a time keep a program from being carried: run it with io_uring off",
                );
            }
            if requests.rings > 0 {
                findings.block(
                    &path,
                    "has registered rings of io_uring for itself (IORING_REGISTER_RING_FDS), which is not carried yet",
                    "Have the program unregister them, or run it with io_uring off",
                );
            }
        }
    }
    for (&pid, process) in processes {
        for segment in &process.segments {
            let Backing::IoUring(mapped) = &segment.backing else { continue };
            if !rings.is_open(mapped.ring) {
                findings.block(
                    format!(
                        "{}: {:#x}-{:#x}",
                        layout::process_file(pid, "mem.segments"),
                        segment.start.0,
                        segment.end.0
                    ),
                    "maps an io_uring that no descriptor leads to, which is not carried yet",
                    "Unmap it before the checkpoint",
                );
            }
        }
    }
    Ok(())
}

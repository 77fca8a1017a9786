//! Adjustments of semaphores at the end of a process (SEM_UNDO).

use super::super::Findings;
use super::super::kernel::Kernel;
use super::super::subject::{Process, Subjects};
use crate::failure::{Doing, Failure};
use crfs_kstate::SemUndo;
use crfs_tracee::Batch;
use image_format::Pid;
use image_format::layout::process_file;
use image_format::sysv::{SemaphoreAdjustment, SemaphoreSet};
use std::collections::BTreeMap;

/// `sysv.semadj` of every process. The tasks are frozen and traced. `sets_of` gives the sets of the ipc namespace that a process is in; None if that is the
/// host's, of which any adjustment is an obstacle.
///
/// # Errors
/// When a task is gone, or the kernel's memory is not as expected.
pub fn capture<'a>(
    subjects: &Subjects,
    sets_of: impl Fn(Pid) -> Option<&'a [SemaphoreSet]>,
    kernel: &mut Kernel,
    findings: &mut Findings,
) -> Result<BTreeMap<Pid, Vec<SemaphoreAdjustment>>, Failure> {
    let mut all = BTreeMap::new();
    let mut seen: Vec<SemUndo> = Vec::new();
    for process in &subjects.processes {
        let sets = sets_of(process.pid);
        // Without semaphores nobody has adjustments.
        if sets.is_some_and(<[_]>::is_empty) {
            continue;
        }
        let (sets, own_namespace) = (sets.unwrap_or_default(), sets.is_some());
        let object = process_file(process.pid, "sysv.semadj");
        let Some(undo) = kernel.ask(process.alive().host, &object, |state, task| state.sem_undo(task))? else {
            continue;
        };
        let shared = undo.iter().any(|entry| seen.contains(entry));
        seen.extend(&undo);
        if shared || differs(process, &undo, &object, kernel)? {
            findings.block(
                &object,
                "has adjustments of semaphores (SEM_UNDO) that not its threads alone share (CLONE_SYSVSEM), which are not carried",
                "Use fork or threads",
            );
            continue;
        }
        let mut lines = Vec::new();
        for entry in undo {
            // A set that was removed since has no more semaphores to adjust.
            let Some(set) = sets.iter().find(|set| u32::try_from(entry.semid) == Ok(set.id)) else {
                if !own_namespace && entry.semid >= 0 {
                    findings.block(
                        &object,
                        "has adjustments of semaphores (SEM_UNDO) of the host's ipc namespace, which are not carried",
                        "Run it in an ipc namespace of its own",
                    );
                }
                continue;
            };
            let count = u16::try_from(set.values.len()).doing(|| object.clone())?;
            let asked =
                kernel.ask(process.alive().host, &object, |state, task| state.sem_adjustments(task, &entry, count))?;
            let adjustments: Vec<i32> = asked.unwrap_or_default().into_iter().map(i32::from).collect();
            if adjustments.iter().any(|&adjustment| adjustment != 0) {
                lines.push(SemaphoreAdjustment { set: set.id, adjustments });
            }
        }
        lines.sort_by_key(|line| line.set);
        all.insert(process.pid, lines);
    }
    Ok(all)
}

/// Whether a thread has a list of its own.
fn differs(process: &Process, undo: &[SemUndo], object: &str, kernel: &mut Kernel) -> Result<bool, Failure> {
    for thread in process.threads.iter().filter(|thread| !matches!(thread.stat.state, b'Z' | b'X')) {
        let own = kernel.ask(thread.host, object, |state, task| state.sem_undo(task))?;
        if own.is_some_and(|own| own != undo) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The calls that give a process its adjustments. Each is made by two operations in one call, which leave the value as it is; the one that
/// raises it goes first, so that neither waits.
pub fn restore(batch: &mut Batch, lines: &[SemaphoreAdjustment]) {
    for line in lines {
        for (index, &adjustment) in (0u16..).zip(&line.adjustments).filter(|(_, adjustment)| **adjustment != 0) {
            let Ok(adjustment) = i16::try_from(adjustment) else { continue };
            // What is taken with SEM_UNDO is given back at the end.
            let (undone, plain) = ((-adjustment, libc::SEM_UNDO), (adjustment, 0));
            let order = if adjustment > 0 { [plain, undone] } else { [undone, plain] };
            let mut operations = Vec::with_capacity(12);
            for (change, flags) in order {
                let flags = i16::try_from(flags | libc::IPC_NOWAIT).unwrap_or(0);
                operations.extend(index.to_ne_bytes());
                operations.extend(change.to_ne_bytes());
                operations.extend(flags.to_ne_bytes());
            }
            let operations = batch.data(&operations);
            batch.call(libc::SYS_semop, &[line.set.into(), operations.into(), 2u64.into()], "semop(SEM_UNDO)");
        }
    }
}

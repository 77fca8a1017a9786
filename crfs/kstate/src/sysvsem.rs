//! What semop(2) with SEM_UNDO will take back when the process ends.
//!
//! One list, shared by the threads of a process and by tasks made with CLONE_SYSVSEM, has an entry for each set of semaphores. A
//! process with threads has a list even when it never used a semaphore, so only the entries tell.
//!
//! Source: ipc/sem.c (`struct sem_undo`), v6.18; semop(2).

use crate::btf::Kind;
use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::{Task, word};

/// Above the limit of sets in an ipc namespace (IPCMNI_EXTEND): the list is no list.
const MAX_UNDO: usize = 1 << 24;

/// The adjustments to one set of semaphores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SemUndo {
    /// The set, in the task's ipc namespace.
    pub semid: i32,
    /// Where the kernel keeps the adjustments.
    adjustments: u64,
}

impl KernelState {
    /// Whether ending the process would adjust any semaphore set, be it by 0.
    ///
    /// # Errors
    /// As [`KernelState::sem_undo`].
    pub fn has_sem_undo(&self, task: &Task) -> Result<bool, Error> {
        Ok(!self.sem_undo(task)?.is_empty())
    }

    /// The sets that have adjustments, for [`KernelState::sem_adjustments`].
    ///
    /// # Errors
    /// [`Error::List`] when the list changes meanwhile; [`Error::FeatureOff`], [`Error::Read`].
    pub fn sem_undo(&self, task: &Task) -> Result<Vec<SemUndo>, Error> {
        if self.absent(Feature::SemUndo) {
            return Ok(Vec::new());
        }
        let view = self.view(Feature::SemUndo, task)?;
        let list = view.u64(&[Path::UndoList])?;
        if list == 0 {
            return Ok(Vec::new());
        }
        let in_place = view.resolved(Path::UndoAdjust)?.field.kind == Kind::Array;
        let entry = view.offset(Path::UndoEntry)?;
        let mut links = [0; 16];
        let head = view.bytes_from(list, &[Path::UndoListHead], &mut links)?;
        let (mut previous, mut node) = (head, word(&links, 0));
        let mut sets = Vec::new();
        while node != head {
            view.bytes_at(node, Path::UndoEntry, &mut links)?;
            if word(&links, 8) != previous || sets.len() >= MAX_UNDO {
                return Err(Error::List { tid: task.tid(), list: "list_proc" });
            }
            let undo = node.wrapping_sub(entry);
            let semid = view.u32_from(undo, &[Path::UndoSemid])?.cast_signed();
            let adjustments = if in_place {
                undo.wrapping_add(view.offset(Path::UndoAdjust)?)
            } else {
                view.u64_from(undo, &[Path::UndoAdjust])?
            };
            sets.push(SemUndo { semid, adjustments });
            (previous, node) = (node, word(&links, 0));
        }
        Ok(sets)
    }

    /// What will be added to each semaphore of a set. `count` is how many the set has: semctl(2) IPC_STAT in the task's ipc namespace
    /// tells it, and the kernel does not keep it with the adjustments; with more than that, what follows is of no meaning.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn sem_adjustments(&self, task: &Task, undo: &SemUndo, count: u16) -> Result<Vec<i16>, Error> {
        let view = self.view(Feature::SemUndo, task)?;
        let mut bytes = vec![0; usize::from(count) * 2];
        view.bytes_at(undo.adjustments, Path::UndoAdjust, &mut bytes)?;
        Ok(bytes.chunks_exact(2).map(|pair| i16::from_ne_bytes([pair[0], pair[1]])).collect())
    }
}

//! What the kernel keeps with an address space: its layout, dumpability, descriptor table and asynchronous I/O contexts.
//!
//! Source: include/linux/mm_types.h, arch/x86/include/asm/mmu_context.h, v6.18; prctl(2), modify_ldt(2).

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::{Task, word};

/// Bits of the flags that hold the dumpable state (MMF_DUMPABLE_MASK).
const DUMPABLE_MASK: u64 = 3;
/// LDT_ENTRIES.
const MAX_LDT: u32 = 8192;

/// The heap's bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Brk {
    /// Where it begins.
    pub start_brk: u64,
    /// Where it ends: what brk(0) returns.
    pub brk: u64,
}

/// Addresses that prctl(2) PR_SET_MM_MAP sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "the kernel's own names, described in prctl(2)")]
pub struct MemoryLayout {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub brk: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
}

impl KernelState {
    /// The heap's bounds.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`] for a task without an address space, [`Error::Read`].
    pub fn brk(&self, task: &Task) -> Result<Brk, Error> {
        let view = self.view(Feature::MemoryLayout, task)?;
        Ok(Brk { start_brk: view.u64(&[Path::TaskMm, Path::StartBrk])?, brk: view.u64(&[Path::TaskMm, Path::Brk])? })
    }

    /// Where code, data, heap, stack, arguments and environment lie.
    ///
    /// # Errors
    /// As [`KernelState::brk`].
    pub fn memory_layout(&self, task: &Task) -> Result<MemoryLayout, Error> {
        let view = self.view(Feature::MemoryLayout, task)?;
        let at = |path| view.u64(&[Path::TaskMm, path]);
        Ok(MemoryLayout {
            start_code: at(Path::StartCode)?,
            end_code: at(Path::EndCode)?,
            start_data: at(Path::StartData)?,
            end_data: at(Path::EndData)?,
            start_brk: at(Path::StartBrk)?,
            brk: at(Path::Brk)?,
            start_stack: at(Path::StartStack)?,
            arg_start: at(Path::ArgStart)?,
            arg_end: at(Path::ArgEnd)?,
            env_start: at(Path::EnvStart)?,
            env_end: at(Path::EnvEnd)?,
        })
    }

    /// PR_GET_DUMPABLE: 0, 1, or 2 for "by root only".
    ///
    /// # Errors
    /// As [`KernelState::brk`].
    pub fn dumpable(&self, task: &Task) -> Result<u8, Error> {
        let flags = self.view(Feature::Dumpable, task)?.u64(&[Path::TaskMm, Path::MmFlags])?;
        Ok((flags & DUMPABLE_MASK) as u8)
    }

    /// Whether the address space has a local descriptor table.
    ///
    /// # Errors
    /// As [`KernelState::brk`].
    pub fn has_ldt(&self, task: &Task) -> Result<bool, Error> {
        if self.absent(Feature::Ldt) {
            return Ok(false);
        }
        Ok(self.view(Feature::Ldt, task)?.u64(&[Path::TaskMm, Path::Ldt])? != 0)
    }

    /// The entries of the local descriptor table as the processor has them, empty when there is none. An unused entry is 0.
    ///
    /// # Errors
    /// As [`KernelState::brk`]; [`Error::List`] for a table that is longer than any.
    pub fn ldt(&self, task: &Task) -> Result<Vec<u64>, Error> {
        if !self.has_ldt(task)? {
            return Ok(Vec::new());
        }
        let view = self.view(Feature::Ldt, task)?;
        let count = view.u32(&[Path::TaskMm, Path::Ldt, Path::LdtCount])?;
        if count > MAX_LDT {
            return Err(Error::List { tid: task.tid(), list: "ldt" });
        }
        let entries = view.u64(&[Path::TaskMm, Path::Ldt, Path::LdtEntries])?;
        let mut bytes = vec![0; count as usize * 8];
        view.bytes_at(entries, Path::LdtEntries, &mut bytes)?;
        Ok(bytes.chunks_exact(8).map(|entry| word(entry, 0)).collect())
    }
}

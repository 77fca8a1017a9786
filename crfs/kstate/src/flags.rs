//! Words of flags whose bits no interface and no type names: which bit is which is learned in calibration.
//!
//! Source: include/linux/mm_types.h (MMF_*), arch/x86/include/asm/thread_info.h (TIF_*), include/linux/mm.h (VM_LOCKED,
//! VM_LOCKONFAULT), v6.18; prctl(2), arch_prctl(2), mlockall(2).

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::Task;

/// `VM_LOCKED` and `VM_LOCKONFAULT`, the same in all versions; calibration proves them.
const VM_LOCKED: u64 = 0x2000;
const VM_LOCKONFAULT: u64 = 0x8_0000;

/// The bits, each as a mask of one; 0 where this kernel or processor has no such state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LearnedBits {
    pub(crate) mdwe: u64,
    pub(crate) mdwe_no_inherit: u64,
    pub(crate) thp_except_advised: u64,
    pub(crate) no_tsc: u64,
    pub(crate) no_cpuid: u64,
    /// Not a bit: where in a task's security blob its Landlock domain stands.
    pub(crate) landlock_offset: u64,
    /// Not a bit: what is added to the number of a page's description, as `socket_buffers` counts, for where the page is mapped.
    pub(crate) direct_map: u64,
    /// Not a bit: where in a task's kernel stack the registers stand that it entered the kernel with.
    pub(crate) registers: u64,
}

/// What holds for all of an address space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryFlags {
    /// PR_MDWE_REFUSE_EXEC_GAIN: no memory becomes executable that is or was writable.
    pub mdwe: bool,
    /// PR_MDWE_NO_INHERIT.
    pub mdwe_no_inherit: bool,
    /// PR_THP_DISABLE_EXCEPT_ADVISED: huge pages only where madvise(2) asked for them.
    pub thp_except_advised: bool,
    /// MCL_FUTURE: new mappings are locked.
    pub lock_future: bool,
    /// MCL_ONFAULT with it: as they are touched.
    pub lock_on_fault: bool,
}

/// Instructions a thread may not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ThreadFlags {
    /// PR_TSC_SIGSEGV: rdtsc raises a signal.
    pub no_tsc: bool,
    /// ARCH_SET_CPUID 0: cpuid raises a signal.
    pub no_cpuid: bool,
}

impl KernelState {
    /// What holds for all of the address space.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`] for a task without an address space, [`Error::Read`].
    pub fn memory_flags(&self, task: &Task) -> Result<MemoryFlags, Error> {
        let (own, future) = self.memory_flag_words(task)?;
        let bits = &self.known.bits;
        Ok(MemoryFlags {
            mdwe: own & bits.mdwe != 0,
            mdwe_no_inherit: own & bits.mdwe_no_inherit != 0,
            thp_except_advised: own & bits.thp_except_advised != 0,
            lock_future: future & VM_LOCKED != 0,
            lock_on_fault: future & VM_LOCKONFAULT != 0,
        })
    }

    /// The flags of the address space, and those that new mappings get.
    pub(crate) fn memory_flag_words(&self, task: &Task) -> Result<(u64, u64), Error> {
        let view = self.view(Feature::MemoryFlags, task)?;
        Ok((view.u64(&[Path::TaskMm, Path::MmFlags])?, view.u64(&[Path::TaskMm, Path::MmDefFlags])?))
    }

    /// Which instructions the thread may not use.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn thread_flags(&self, task: &Task) -> Result<ThreadFlags, Error> {
        let word = self.thread_flag_word(task)?;
        let bits = &self.known.bits;
        Ok(ThreadFlags { no_tsc: word & bits.no_tsc != 0, no_cpuid: word & bits.no_cpuid != 0 })
    }

    pub(crate) fn thread_flag_word(&self, task: &Task) -> Result<u64, Error> {
        self.view(Feature::ThreadFlags, task)?.u64(&[Path::ThreadInfoFlags])
    }
}

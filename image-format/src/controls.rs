//! What prctl(2) and its like set for an address space or a thread and nothing else shows.

use crate::flags;
use crate::types::{Address, Hex};
use serde::{Deserialize, Serialize};

/// What holds for all memory of a process (`memory` of its `attr`).
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryPolicy {
    /// PR_SET_THP_DISABLE.
    pub huge_pages: HugePages,
    /// PR_SET_MEMORY_MERGE: pages may be merged with equal ones of others.
    pub merge: bool,
    /// PR_SET_MDWE: no memory becomes executable that was not.
    pub mdwe: Mdwe,
    /// mlockall(2): new mappings are locked.
    pub lock_future: LockFuture,
}

/// Where a process gets huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HugePages {
    /// As the machine is set.
    #[default]
    Default,
    /// Only where madvise(2) asked for them (PR_THP_DISABLE_EXCEPT_ADVISED).
    Advised,
    /// Nowhere.
    Never,
}

flags! {
    /// `PR_MDWE_` flags.
    Mdwe {
        PR_MDWE_REFUSE_EXEC_GAIN = 1, PR_MDWE_NO_INHERIT = 2,
    }
}

flags! {
    /// `MCL_` flags that outlast the call.
    LockFuture {
        MCL_FUTURE = 2, MCL_ONFAULT = 4,
    }
}

/// `controls` of a thread's `attr`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ThreadControls {
    /// PR_TSC_SIGSEGV: rdtsc raises SIGSEGV.
    pub no_tsc: bool,
    /// ARCH_SET_CPUID 0: cpuid raises SIGSEGV.
    pub no_cpuid: bool,
    /// PR_MCE_KILL.
    pub memory_errors: MemoryErrors,
    /// PR_SET_IO_FLUSHER.
    pub io_flusher: bool,
    /// PR_SET_SYSCALL_USER_DISPATCH; null when off.
    pub syscall_dispatch: Option<SyscallDispatch>,
}

/// When a thread is told of a memory error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryErrors {
    /// As the machine is set.
    #[default]
    Default,
    /// As the page is found to be broken.
    Early,
    /// When it touches the page.
    Late,
}

/// System calls that become signals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyscallDispatch {
    /// The byte that allows or blocks; 0 for none: blocked.
    pub selector: Address,
    /// Calls from here are always allowed. The kernel keeps a range that is blocked (PR_SYS_DISPATCH_INCLUSIVE_ON) as the one around it.
    pub start: Address,
    /// So many bytes on, past the end of the address space and from 0 on if need be.
    pub length: Hex,
}

//! Captures `controls` of a thread's `attr`.

use super::super::kernel::Kernel;
use super::super::subject::Thread;
use crate::failure::Failure;
use image_format::controls::{MemoryErrors, SyscallDispatch, ThreadControls};
use image_format::{Address, Hex};

/// `PF_MCE_PROCESS` and `PF_MCE_EARLY` (prctl PR_MCE_KILL), `PF_MEMALLOC_NOIO` with `PF_LOCAL_THROTTLE` (PR_SET_IO_FLUSHER):
/// `include/linux/sched.h`, v6.18.
const PF_MCE_PROCESS: u32 = 0x80;
const PF_MCE_EARLY: u32 = 0x0800_0000;
const PF_IO_FLUSHER: u32 = 0x0008_0000 | 0x0010_0000;

/// Reads them. `path` is the thread's `attr`.
///
/// # Errors
/// When the thread is gone.
pub fn capture(thread: &Thread, path: &str, kernel: &mut Kernel) -> Result<ThreadControls, Failure> {
    let host = thread.host;
    let process_flags = thread.stat.flags;
    let flags = kernel.ask(host, path, |state, task| state.thread_flags(task))?.unwrap_or_default();
    let dispatch = kernel.ask(host, path, |state, task| state.syscall_dispatch(task))?.unwrap_or_default();
    Ok(ThreadControls {
        no_tsc: flags.no_tsc,
        no_cpuid: flags.no_cpuid,
        memory_errors: match (process_flags & PF_MCE_PROCESS != 0, process_flags & PF_MCE_EARLY != 0) {
            (false, _) => MemoryErrors::Default,
            (true, true) => MemoryErrors::Early,
            (true, false) => MemoryErrors::Late,
        },
        io_flusher: process_flags & PF_IO_FLUSHER == PF_IO_FLUSHER,
        syscall_dispatch: dispatch.on.then_some(SyscallDispatch {
            selector: Address(dispatch.selector),
            start: Address(dispatch.offset),
            length: Hex(dispatch.length),
        }),
    })
}

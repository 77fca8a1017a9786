//! Sets the controls of a thread again.

use crate::failure::{Doing, Failure};
use crfs_sys::ptrace::SyscallDispatch as Config;
use crfs_tracee::{Batch, Injector, Stopped, Tracee};
use image_format::controls::{MemoryErrors, ThreadControls};

const PR_SET_TSC: u64 = 26;
const PR_TSC_SIGSEGV: u64 = 2;
const PR_MCE_KILL: u64 = 33;
const PR_MCE_KILL_SET: u64 = 1;
const PR_MCE_KILL_LATE: u64 = 0;
const PR_MCE_KILL_EARLY: u64 = 1;
const PR_SET_IO_FLUSHER: u64 = 57;
const ARCH_SET_CPUID: u64 = 0x1012;
const EPERM: i64 = -1;

/// Makes the calls, with root's capabilities. `path` is the thread's `attr`.
///
/// # Errors
/// When the kernel refuses: this machine's processor cannot forbid cpuid, say.
pub fn restore(
    injector: &mut Injector,
    path: &str,
    controls: &ThreadControls,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let mut batch = Batch::new();
    if controls.no_tsc {
        batch.call(libc::SYS_prctl, &[PR_SET_TSC.into(), PR_TSC_SIGSEGV.into()], "prctl(PR_SET_TSC)");
    }
    if controls.no_cpuid {
        batch.call(libc::SYS_arch_prctl, &[ARCH_SET_CPUID.into(), 0u64.into()], "arch_prctl(ARCH_SET_CPUID)");
    }
    let when = match controls.memory_errors {
        MemoryErrors::Default => None,
        MemoryErrors::Early => Some(PR_MCE_KILL_EARLY),
        MemoryErrors::Late => Some(PR_MCE_KILL_LATE),
    };
    if let Some(when) = when {
        batch.call(libc::SYS_prctl, &[PR_MCE_KILL.into(), PR_MCE_KILL_SET.into(), when.into()], "prctl(PR_MCE_KILL)");
    }
    injector.run(&batch).doing(|| path.to_owned())?;
    if controls.io_flusher {
        let set = injector.attempt(libc::SYS_prctl, &[PR_SET_IO_FLUSHER, 1], "prctl(PR_SET_IO_FLUSHER)");
        if set.doing(|| path.to_owned())? == EPERM {
            notes.push(format!("{path}: io_flusher could not be set (PR_SET_IO_FLUSHER takes CAP_SYS_RESOURCE)"));
        }
    }
    Ok(())
}

/// Turns system calls into signals again, in a thread that makes no more of ours.
///
/// # Errors
/// When the kernel refuses.
pub fn dispatch(tracee: &Tracee<Stopped>, path: &str, controls: &ThreadControls) -> Result<(), Failure> {
    let Some(dispatch) = &controls.syscall_dispatch else { return Ok(()) };
    let config = Config { selector: dispatch.selector.0, offset: dispatch.start.0, length: dispatch.length.0 };
    tracee.set_syscall_dispatch(config).doing(|| path.to_owned())
}

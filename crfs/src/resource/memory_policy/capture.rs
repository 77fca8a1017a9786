//! Captures `memory` of a process's `attr`.

use super::super::kernel::Kernel;
use super::super::proc::Proc;
use super::super::subject::Process;
use crate::failure::Failure;
use image_format::controls::{HugePages, LockFuture, Mdwe, MemoryPolicy};
use image_format::layout;

/// Reads it.
///
/// # Errors
/// When the process is gone.
pub fn capture(process: &Process, proc: &mut Proc, kernel: &mut Kernel) -> Result<MemoryPolicy, Failure> {
    let host = process.alive().host;
    let path = layout::process_file(process.pid, "attr");
    let flags = kernel.ask(host, &path, |state, task| state.memory_flags(task))?.unwrap_or_default();
    let bit = |is_set: bool, bit: u64| if is_set { bit } else { 0 };
    Ok(MemoryPolicy {
        huge_pages: match (process.alive().status.thp_enabled, flags.thp_except_advised) {
            (false, _) => HugePages::Never,
            (true, true) => HugePages::Advised,
            (true, false) => HugePages::Default,
        },
        // There only where the kernel can merge pages.
        merge: proc.read(format_args!("{host}/ksm_stat")).is_ok_and(|text| contains(text, b"ksm_merge_any: yes")),
        mdwe: Mdwe(
            bit(flags.mdwe, Mdwe::PR_MDWE_REFUSE_EXEC_GAIN.0) | bit(flags.mdwe_no_inherit, Mdwe::PR_MDWE_NO_INHERIT.0),
        ),
        lock_future: LockFuture(
            bit(flags.lock_future, LockFuture::MCL_FUTURE.0) | bit(flags.lock_on_fault, LockFuture::MCL_ONFAULT.0),
        ),
    })
}

fn contains(text: &[u8], words: &[u8]) -> bool {
    text.windows(words.len()).any(|window| window == words)
}

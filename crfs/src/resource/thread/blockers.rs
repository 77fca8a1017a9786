//! What of a thread cannot be carried.

use super::super::Findings;
use super::super::kernel::Kernel;
use super::super::subject::{Process, Thread};
use crate::failure::Failure;
use image_format::layout;

/// Obstacles that /proc tells, of a running thread too. `ours` is the surveying task itself, for what has a default of the machine.
pub fn survey(process: &Process, thread: &Thread, ours: &super::super::proc::Status, findings: &mut Findings) {
    let object = layout::thread_file(process.pid, thread.tid, "attr");
    let status = &thread.status;
    if status.tracer != 0 {
        findings.block(
            &object,
            format!("is traced by process {} (a debugger, strace), and a task has one tracer only", status.tracer),
            "End the tracer",
        );
    }
    if status.store_bypass != ours.store_bypass || status.indirect_branch != ours.indirect_branch {
        findings.block(
            &object,
            format!(
                "has speculation controls of its own (store bypass {:?}, indirect branch {:?}), which are not carried yet",
                status.store_bypass, status.indirect_branch
            ),
            "Start it without PR_SET_SPECULATION_CTRL",
        );
    }
    if !status.thread_features.is_empty() {
        findings.block(
            &object,
            format!("uses control-flow protection ({}), whose shadow stack is not carried yet", status.thread_features),
            "Start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
        );
    }
}

/// Obstacles that only kernel memory tells, of a frozen and traced thread.
///
/// # Errors
/// When the thread is gone.
pub fn kernel_blockers(host: i32, object: &str, kernel: &mut Kernel, findings: &mut Findings) -> Result<(), Failure> {
    let path = format!("{object}/attr");
    let absent = "Start it without; it is not carried yet";
    if kernel.ask(host, &path, |state, task| state.tls_array(task))?.is_some_and(|array| array != [0; 3]) {
        findings.block(&path, "has segments in the GDT (set_thread_area)", absent);
    }
    let bitmap = kernel.ask(host, &path, |state, task| state.has_io_bitmap(task))?.unwrap_or(false);
    if bitmap || kernel.ask(host, &path, |state, task| state.io_privilege_level(task))?.unwrap_or(0) != 0 {
        findings.block(&path, "may use I/O ports (ioperm, iopl)", absent);
    }
    Ok(())
}

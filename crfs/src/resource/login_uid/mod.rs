//! The login uid: who logged in, for the kernel's audit, whatever became of the process since.
//!
//! - **What:** a user id, or none, that children inherit.
//! - **Where:** `task_struct.loginuid` (`include/linux/sched.h`, `fs/proc/base.c`, v6.18).
//! - **Read:** from kernel memory; /proc/PID/task/TID/loginuid where that cannot be read.
//! - **Made again:** a thread may write its own only, so it pulls the file from the worker.
//! - **Refused:** nothing. Where the host's audit has fixed it there is a note. The session id (/proc/PID/sessionid) is the kernel's
//!   to give: a new one.

use super::proc::Proc;
use crate::failure::{Doing, Failure};
use crfs_tracee::{Arg, HostPid, Injector};
use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;

/// `AUDIT_UID_UNSET`.
const UNSET: u32 = u32::MAX;
const EPERM: i64 = -1;

/// Reads it; None for nobody, and where the kernel has no audit. `thread` is `PID/task/TID`.
#[must_use]
pub fn capture(proc: &mut Proc, thread: &str) -> Option<u32> {
    let text = proc.text(format_args!("{thread}/loginuid")).ok()?;
    text.trim().parse().ok().filter(|&uid| uid != UNSET)
}

/// The one that a task has now. None for nobody, and on a kernel without audit.
#[must_use]
pub fn current(task: HostPid) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{}/loginuid", task.raw())).ok()?;
    text.trim().parse().ok().filter(|&uid| uid != UNSET)
}

/// Sets it. `link` is the thread's descriptor of the worker, `path` its `attr`.
///
/// # Errors
/// When the thread cannot make the calls.
pub fn restore(
    injector: &mut Injector,
    link: u32,
    path: &str,
    login_uid: Option<u32>,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let file = format!("/proc/{}/loginuid", injector.tid().raw());
    let wanted = login_uid.unwrap_or(UNSET).to_string();
    let written = match OpenOptions::new().write(true).open(&file) {
        Ok(file) => {
            let fd = u64::try_from(file.as_raw_fd()).unwrap_or(u64::MAX);
            let mut batch = crfs_tracee::Batch::new();
            let text = batch.data(wanted.as_bytes());
            let own = batch.call(libc::SYS_pidfd_getfd, &[link.into(), fd.into(), 0u64.into()], "pidfd_getfd");
            let args = [Arg::Result(own), text.into(), wanted.len().into()];
            let written = batch.attempt(libc::SYS_write, &args, "write to loginuid");
            batch.call(libc::SYS_close, &[Arg::Result(own)], "close");
            let results = injector.run(&batch).doing(|| path.to_owned())?;
            results.get(written.index()).copied().unwrap_or(EPERM)
        }
        Err(_) => EPERM,
    };
    if written < 0 {
        notes.push(format!("{path}: login_uid {wanted} could not be set (this host's audit does not allow it)"));
    }
    Ok(())
}

//! Ids for tasks whose maker may not ask for them: clone3(2) takes ids only from who is privileged in every pid namespace of the task, which nobody
//! is who has joined a user namespace below theirs.

use crate::failure::{Doing, Failure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::fs::File;
use std::io::Write;

/// The id that was given last, of the pid namespace of whoever writes (`pid_ns_ctl_handler`, kernel/pid_namespace.c, v6.18).
const LAST: &str = "/proc/sys/kernel/ns_last_pid";

/// Has the next task that is born into a pid namespace take this id there, if nobody has it. A child of the calling process says so, born there and gone at
/// once. The caller must have one thread.
pub(super) fn offer(namespace: &File, id: i32) -> Result<(), Failure> {
    let last = File::options().write(true).open(LAST).doing(|| LAST)?;
    let own = File::open("/proc/self/ns/pid").doing(|| "/proc/self/ns/pid: opening")?;
    setns(namespace, CloneFlags::CLONE_NEWPID).doing(|| "setns(2)")?;
    let said = say(last, id);
    setns(&own, CloneFlags::CLONE_NEWPID).doing(|| "going back to the own pid namespace")?;
    said.doing(|| format!("{LAST}: writing"))
}

fn say(mut last: File, id: i32) -> nix::Result<()> {
    let child = match fork_into(&CloneArgs::default())? {
        Forked::Child => {
            let said = last.write_all((id - 1).to_string().as_bytes());
            exit_now(said.map_or_else(|error| error.raw_os_error().unwrap_or(libc::EIO), |()| 0))
        }
        Forked::Parent { child, .. } => child,
    };
    match waitpid(child, Some(WaitPidFlag::__WALL))? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, errno) => Err(Errno::from_raw(errno)),
        _ => Err(Errno::ECHILD),
    }
}

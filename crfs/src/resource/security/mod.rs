//! Security state that nobody can hand on: Landlock domains, keys, labels of security modules, core scheduling.
//!
//! - **What:** what confines a thread beside its credentials, and the keys it holds.
//! - **Where:** `cred` and what security modules keep with it (`include/linux/cred.h`, v6.18).
//! - **Read:** labels from /proc/PID/attr/current, the cookie by prctl(2); domains and keyrings from kernel memory.
//! - **Made again:** not at all. A session keyring without keys is as good as the one of whoever restores.
//! - **Refused:** all of it: a program that believes itself confined must not come back free.

use super::Findings;
use super::kernel::Kernel;
use super::proc::Proc;
use super::subject::{Process, Thread};
use crate::failure::{Doing, Failure};
use image_format::layout;
use nix::errno::Errno;
use nix::unistd::Pid;

/// Obstacles that the system tells from outside, of a running thread too.
///
/// # Errors
/// When the thread is gone.
pub fn survey(process: &Process, thread: &Thread, proc: &mut Proc, findings: &mut Findings) -> Result<(), Failure> {
    let path = layout::thread_file(process.pid, thread.tid, "attr");
    // No security module keeps labels: EINVAL. Where one does, ours is what the restored thread would have.
    let label = proc.read(format_args!("{}/task/{}/attr/current", process.host, thread.host)).map(<[u8]>::to_vec);
    if let Ok(label) = label
        && proc.read(format_args!("thread-self/attr/current")).is_ok_and(|own| own != label)
    {
        let label = String::from_utf8_lossy(&label).trim_end_matches(['\0', '\n']).to_owned();
        findings.block(
            &path,
            format!("runs under the label {label:?} of a security module, which is not carried"),
            "Start it without a profile or context of its own",
        );
    }
    match crfs_sys::sched::core_cookie(Pid::from_raw(thread.host)) {
        // Not on this kernel, or not on this machine, or it has ended.
        Ok(0) | Err(Errno::EINVAL | Errno::ENODEV | Errno::ESRCH) => {}
        Ok(_) => findings.block(
            &path,
            "has a core scheduling cookie (PR_SCHED_CORE), which is not carried",
            "Start it without; give it a cookie after the restore",
        ),
        Err(errno) => return Err(errno).doing(|| format!("{path}: reading the core scheduling cookie")),
    }
    Ok(())
}

/// Obstacles that only kernel memory tells, of a frozen and traced thread. `path` is its `attr`.
///
/// # Errors
/// When the thread is gone.
pub fn kernel_blockers(host: i32, path: &str, kernel: &mut Kernel, findings: &mut Findings) -> Result<(), Failure> {
    if kernel.ask(host, path, |state, task| state.in_landlock_domain(task))?.unwrap_or(false) {
        findings.block(
            path,
            "is confined by Landlock, whose rules nobody can read",
            "Start it without; it would come back free",
        );
    }
    let rings = kernel.ask(host, path, |state, task| Ok((state.keyrings(task)?, state.own_keyrings()?.session)))?;
    let Some((rings, own_session)) = rings else { return Ok(()) };
    // What everybody of the host's session has is there again for whoever restores from it.
    let session = rings.session.filter(|&ring| Some(ring.address) != own_session.map(|own| own.address));
    let kinds = [("thread", rings.thread), ("process", rings.process), ("session", session)];
    for (kind, keys) in kinds.iter().filter_map(|(kind, ring)| ring.map(|ring| (kind, ring.keys))) {
        if keys > 0 {
            findings.block(
                path,
                format!("has keys in a {kind} keyring of its own, which are not carried"),
                "Have the program drop its keys (keyctl clear), and read them anew after the restore",
            );
        }
    }
    Ok(())
}

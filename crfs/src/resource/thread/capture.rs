//! Captures `attr` of a thread.

use super::super::kernel::Kernel;
use super::super::proc::{Proc, Status};
use super::super::signal;
use super::super::still::Still;
use super::super::subject::Thread;
use super::super::{login_uid, thread_controls};
use crate::failure::{Doing, Failure};
use crfs_sys::{robust_list, sched};
use image_format::seccomp::Seccomp;
use image_format::thread::{Credentials, RobustList, Rseq, Scheduling, SecureBits, ThreadAttr};
use image_format::types::{Address, Bytes, Hex};
use nix::unistd::Pid;
use std::sync::OnceLock;

/// `SCHED_DEADLINE`.
const SCHED_DEADLINE: u32 = 6;

/// Reads it but for the securebits and `seccomp`, which are given. `object` is the thread's directory.
///
/// # Errors
/// When the thread is gone.
pub fn capture(
    still: &Still,
    process: i32,
    thread: &Thread,
    object: &str,
    (securebits, seccomp): (u32, Seccomp),
    proc: &mut Proc,
    kernel: &mut Kernel,
) -> Result<ThreadAttr, Failure> {
    let path = format!("{object}/attr");
    let host = thread.host;
    let robust = robust_list::get(Pid::from_raw(host)).doing(|| format!("{path}: reading the robust list"))?;
    let rseq = still.rseq(&path, kernel)?;
    // Threads other than leaders have their timer slack only under their own number.
    let (timer_slack_ns, personality, login_uid) = match &thread.record {
        Some(record) => (record.timer_slack_ns, record.personality.into(), record.login_uid),
        None => (
            proc.number(format_args!("{host}/timerslack_ns"))?,
            proc.hex(format_args!("{process}/task/{host}/personality"))?,
            login_uid::capture(proc, &format!("{process}/task/{host}")),
        ),
    };
    Ok(ThreadAttr {
        name: Bytes(thread.stat.comm.clone()),
        credentials: credentials(&thread.status, securebits),
        scheduling: scheduling(host, &path)?,
        affinity: affinity(host, &path)?,
        timer_slack_ns,
        personality: Hex(personality),
        tid_address: Address(kernel.ask(host, &path, |state, task| state.clear_child_tid(task))?.unwrap_or(0)),
        robust_list: RobustList { head: Address(robust.head), length: robust.len },
        rseq: rseq.map(|rseq| Rseq {
            address: Address(rseq.address),
            size: rseq.size,
            signature: rseq.signature,
            // None are defined yet.
            flags: 0,
        }),
        pdeath_signal: signal::from_number(
            kernel.ask(host, &path, |state, task| state.pdeath_signal(task))?.unwrap_or(0),
        ),
        no_new_privs: thread.status.no_new_privs,
        seccomp,
        controls: thread_controls::capture(thread, &path, kernel)?,
        login_uid,
        // Found by comparing with the first thread; the caller sets it.
        directories: None,
    })
}

fn credentials(status: &Status, securebits: u32) -> Credentials {
    Credentials {
        uid: status.uid,
        gid: status.gid,
        groups: status.groups.clone(),
        inheritable: Hex(status.cap_inheritable),
        permitted: Hex(status.cap_permitted),
        effective: Hex(status.cap_effective),
        bounding: Hex(status.cap_bounding),
        ambient: Hex(status.cap_ambient),
        securebits: SecureBits(u64::from(securebits)),
    }
}

fn scheduling(host: i32, path: &str) -> Result<Scheduling, Failure> {
    let tid = Pid::from_raw(host);
    let attributes = sched::attributes(tid).doing(|| format!("{path}: reading the scheduling attributes"))?;
    let deadline = attributes.policy == SCHED_DEADLINE;
    // A time-sharing task reports its slice as a runtime (v6.12 and later). The default slice is no attribute of the task.
    let own_slice = attributes.runtime != default_slice().doing(|| format!("{path}: reading the default slice"))?;
    let io_priority = sched::io_priority(tid).doing(|| format!("{path}: reading the I/O priority"))?;
    Ok(Scheduling {
        policy: attributes.policy,
        flags: Hex(attributes.flags),
        nice: sched::nice(tid).doing(|| format!("{path}: reading the nice value"))?,
        priority: attributes.priority,
        runtime_ns: if deadline || own_slice { attributes.runtime } else { 0 },
        deadline_ns: attributes.deadline,
        period_ns: attributes.period,
        io_priority: io_priority.cast_unsigned(),
    })
}

/// The slice of a task that asked for none, as this worker: asked once, and not for each of a thousand threads.
fn default_slice() -> nix::Result<u64> {
    static SLICE: OnceLock<nix::Result<u64>> = OnceLock::new();
    *SLICE.get_or_init(|| sched::attributes(Pid::from_raw(0)).map(|attributes| attributes.runtime))
}

fn affinity(host: i32, path: &str) -> Result<Vec<u32>, Failure> {
    let words = sched::affinity(Pid::from_raw(host)).doing(|| format!("{path}: reading the affinity"))?;
    let mut cpus = Vec::new();
    for (index, word) in (0u32..).zip(words) {
        cpus.extend((0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| index * 64 + bit));
    }
    Ok(cpus)
}

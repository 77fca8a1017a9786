//! What a thread is: registrations with the kernel, scheduling, credentials.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::user_namespace;
use crfs_tracee::{Batch, HostPid};
use image_format::signal::AltStackFlags;
use image_format::thread::{Credentials, SecureBits, ThreadAttr};
use image_format::{ThreadImage, layout};
use nix::errno::Errno;
use std::fs::File;

const PR_SET_PDEATHSIG: u64 = 1;
const PR_SET_DUMPABLE: u64 = 4;
const PR_SET_NAME: u64 = 15;
const PR_CAPBSET_DROP: u64 = 24;
const PR_SET_SECUREBITS: u64 = 28;
const PR_SET_TIMERSLACK: u64 = 29;
const PR_SET_NO_NEW_PRIVS: u64 = 38;
const PR_CAP_AMBIENT: u64 = 47;
const PR_CAP_AMBIENT_RAISE: u64 = 2;
const PR_CAP_AMBIENT_CLEAR_ALL: u64 = 4;
/// `_LINUX_CAPABILITY_VERSION_3`
const CAPABILITY_VERSION: u32 = 0x2008_0522;
/// Capabilities the kernel knows at most (CAP_LAST_CAP is 40 in v6.18; the mask has 64 bits).
const CAPABILITIES: u64 = 64;

/// The calls a thread makes for its own registrations: tid address, robust list, rseq, alternate stack, name, personality, timer
/// slack.
pub fn registrations(batch: &mut Batch, thread: &ThreadImage) {
    let ThreadAttr { name, tid_address, robust_list, rseq, personality, timer_slack_ns, .. } = &thread.attr;
    batch.call(libc::SYS_set_tid_address, &[tid_address.0.into()], "set_tid_address");
    if robust_list.length != 0 {
        let args = [robust_list.head.0.into(), robust_list.length.into()];
        batch.call(libc::SYS_set_robust_list, &args, "set_robust_list");
    }
    if let Some(rseq) = rseq {
        let args = [rseq.address.0.into(), rseq.size.into(), rseq.flags.into(), rseq.signature.into()];
        batch.call(libc::SYS_rseq, &args, "rseq");
    }
    let mut comm = name.0.clone();
    comm.push(0);
    let comm = batch.data(&comm);
    batch.call(libc::SYS_prctl, &[PR_SET_NAME.into(), comm.into()], "prctl(PR_SET_NAME)");
    batch.call(libc::SYS_personality, &[personality.0.into()], "personality");
    // Before the policy: a real-time thread has none, and what it is set to is ignored.
    batch.call(libc::SYS_prctl, &[PR_SET_TIMERSLACK.into(), (*timer_slack_ns).into()], "prctl(PR_SET_TIMERSLACK)");
    if !thread.altstack.flags.contains(AltStackFlags::SS_DISABLE) {
        // SS_ONSTACK only tells where the stack pointer was; the kernel derives it.
        let flags = thread.altstack.flags.0 & !AltStackFlags::SS_ONSTACK.0;
        let mut stack = Vec::with_capacity(24);
        stack.extend_from_slice(&thread.altstack.sp.0.to_ne_bytes());
        stack.extend_from_slice(&flags.to_ne_bytes());
        stack.extend_from_slice(&thread.altstack.size.to_ne_bytes());
        let stack = batch.data(&stack);
        batch.call(libc::SYS_sigaltstack, &[stack.into(), 0u64.into()], "sigaltstack");
    }
}

/// Sets from outside how a thread is scheduled. CPUs this host does not have are told; `any` are those it gets if it has no other.
///
/// # Errors
/// When the kernel refuses.
pub fn scheduling(
    tid: HostPid,
    path: &str,
    attr: &ThreadAttr,
    any: &[u64],
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    let mut words = vec![0u64; 16];
    for &cpu in &attr.affinity {
        let word = words.get_mut(cpu as usize / 64);
        let word =
            word.ok_or_else(|| Failure::new(Kind::BadImage, format!("{path}: affinity: no CPU has number {cpu}")))?;
        *word |= 1 << (cpu % 64);
    }
    match crfs_sys::sched::set_affinity(tid.pid(), &words) {
        Ok(()) => {
            let got = crfs_sys::sched::affinity(tid.pid()).doing(|| format!("{path}: reading the affinity"))?;
            if words.iter().zip(got.iter().chain(std::iter::repeat(&0))).any(|(wanted, got)| wanted & !got != 0) {
                notes.push(format!("{path}: affinity names CPUs that this host does not have; the others are kept"));
            }
        }
        Err(Errno::EINVAL) => {
            crfs_sys::sched::set_affinity(tid.pid(), any).doing(|| format!("{path}: setting the affinity"))?;
            notes.push(format!("{path}: affinity names only CPUs that this host does not have; it runs on any"))
        }
        Err(errno) => return Err(errno).doing(|| format!("{path}: setting the affinity")),
    }
    let wanted = &attr.scheduling;
    let mut scheduler = crfs_sys::sched::SchedAttr::default();
    scheduler.policy = wanted.policy;
    scheduler.flags = wanted.flags.0;
    scheduler.nice = wanted.nice;
    scheduler.priority = wanted.priority;
    scheduler.runtime = wanted.runtime_ns;
    scheduler.deadline = wanted.deadline_ns;
    scheduler.period = wanted.period_ns;
    // Other policies than OTHER and BATCH keep a nice value without using it, and set no other.
    crfs_sys::sched::set_nice(tid.pid(), wanted.nice).doing(|| format!("{path}: setting the nice value"))?;
    crfs_sys::sched::set_attributes(tid.pid(), &scheduler)
        .doing(|| format!("{path}: setting the scheduling policy"))?;
    let io_priority = i32::try_from(wanted.io_priority).unwrap_or(0);
    crfs_sys::sched::set_io_priority(tid.pid(), io_priority).doing(|| format!("{path}: setting the I/O priority"))
}

/// The capabilities that this worker has and can therefore hand on.
///
/// # Errors
/// When /proc/self/status cannot be read.
pub fn own_capabilities() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status").doing(|| "/proc/self/status: reading")?;
    let permitted = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapPrm:")?.trim(), 16).ok());
    permitted.ok_or_else(|| Failure::new(Kind::System, "/proc/self/status: has no CapPrm"))
}

/// The capabilities that there are: what whoever joins a user namespace has in it.
///
/// # Errors
/// When /proc cannot be read.
pub fn all_capabilities() -> Result<u64, Failure> {
    let path = "/proc/sys/kernel/cap_last_cap";
    let last = std::fs::read_to_string(path).doing(|| path)?;
    let last: u32 = last.trim().parse().doing(|| path)?;
    Ok(u64::MAX >> (u64::BITS - 1).saturating_sub(last))
}

/// The calls that give a thread, which is root, its users and groups, with all capabilities kept; and have it join `user`, a user namespace other than
/// the container's own, with the thread's pidfd of the worker.
///
/// While ids change, SECBIT_NO_SETUID_FIXUP keeps the kernel from touching capabilities; the thread's own securebits follow while
/// it still has CAP_SETPCAP.
pub fn identity(batch: &mut Batch, Credentials { uid, gid, groups, .. }: &Credentials, user: Option<(&File, u32)>) {
    // As another user it could not pull it any more.
    let pulled = user.map(|(namespace, link)| user_namespace::pull(batch, namespace, link));
    prctl(batch, &[PR_SET_SECUREBITS, SecureBits::SECBIT_NO_SETUID_FIXUP.0], "prctl(PR_SET_SECUREBITS)");
    let list: Vec<u8> = groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
    let list = batch.data(&list);
    batch.call(libc::SYS_setgroups, &[groups.len().into(), list.into()], "setgroups");
    let [real, current, saved, fs] = *gid;
    batch.call(libc::SYS_setresgid, &[real.into(), current.into(), saved.into()], "setresgid");
    batch.call(libc::SYS_setfsgid, &[fs.into()], "setfsgid");
    let [real, current, saved, fs] = *uid;
    batch.call(libc::SYS_setresuid, &[real.into(), current.into(), saved.into()], "setresuid");
    batch.call(libc::SYS_setfsuid, &[fs.into()], "setfsuid");
    if let Some(pulled) = pulled {
        user_namespace::join(batch, pulled);
    }
}

/// The calls that leave a thread with its own capabilities. `own` are those that it begins with, the worker's, or in a
/// user namespace all there are; what is lacking is left out, with a note.
pub fn credentials(batch: &mut Batch, path: &str, attr: &ThreadAttr, own: u64, notes: &mut Vec<String>) {
    let credentials = &attr.credentials;
    let lacking = (credentials.permitted.0 | credentials.ambient.0) & !own;
    if lacking != 0 {
        notes.push(format!("{path}: capabilities {lacking:#x} are left out: this host's root does not have them"));
    }
    capabilities(batch, credentials, own);
    if attr.no_new_privs {
        prctl(batch, &[PR_SET_NO_NEW_PRIVS, 1], "prctl(PR_SET_NO_NEW_PRIVS)");
    }
}

/// The signal that tells of the parent's death, which a change of credentials takes away. Whoever restores a process whose parent was outside is
/// its parent, and ends: that would be told.
pub fn pdeath_signal(batch: &mut Batch, path: &str, attr: &ThreadAttr, has_parent: bool, notes: &mut Vec<String>) {
    let told = attr.pdeath_signal.filter(|_| has_parent).map_or(0, |signal| u64::from(signal.0));
    if let Some(signal) = attr.pdeath_signal.filter(|_| !has_parent) {
        notes.push(format!(
            "{path}: pdeath_signal: its parent was outside of the container, whose end {signal} would have told"
        ));
    }
    prctl(batch, &[PR_SET_PDEATHSIG, told], "prctl(PR_SET_PDEATHSIG)");
}

/// Capabilities and securebits of a thread that has all of `own`.
fn capabilities(batch: &mut Batch, credentials: &Credentials, own: u64) {
    let Credentials { inheritable, permitted, effective, bounding, ambient, securebits, .. } = credentials;
    for capability in (0..CAPABILITIES).filter(|bit| own >> bit & 1 == 1 && bounding.0 >> bit & 1 == 0) {
        prctl(batch, &[PR_CAPBSET_DROP, capability], "prctl(PR_CAPBSET_DROP)");
    }
    capset(batch, own, own, inheritable.0 & own);
    prctl(batch, &[PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL], "prctl(PR_CAP_AMBIENT)");
    for capability in (0..CAPABILITIES).filter(|bit| ambient.0 & own & inheritable.0 & permitted.0 & (1 << bit) != 0) {
        prctl(batch, &[PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability], "prctl(PR_CAP_AMBIENT_RAISE)");
    }
    prctl(batch, &[PR_SET_SECUREBITS, securebits.0], "prctl(PR_SET_SECUREBITS)");
    capset(batch, effective.0 & own, permitted.0 & own, inheritable.0 & own);
}

fn prctl(batch: &mut Batch, args: &[u64], label: &'static str) {
    let args: Vec<_> = args.iter().map(|&arg| arg.into()).collect();
    batch.call(libc::SYS_prctl, &args, label);
}

/// mm->dumpable, which changing credentials cleared: once a process, after all of its threads. 2 cannot be asked for; it is what
/// changing credentials leaves.
pub fn dumpable(batch: &mut Batch, dumpable: u8) {
    if dumpable < 2 {
        batch.call(libc::SYS_prctl, &[PR_SET_DUMPABLE.into(), u64::from(dumpable).into()], "prctl(PR_SET_DUMPABLE)");
    }
}

fn capset(batch: &mut Batch, effective: u64, permitted: u64, inheritable: u64) {
    let mut header = CAPABILITY_VERSION.to_ne_bytes().to_vec();
    header.extend_from_slice(&[0; 4]);
    let mut data = Vec::with_capacity(24);
    for shift in [0, 32] {
        for mask in [effective, permitted, inheritable] {
            data.extend_from_slice(&(mask >> shift & 0xffff_ffff).to_ne_bytes()[..4]);
        }
    }
    let (header, data) = (batch.data(&header), batch.data(&data));
    batch.call(libc::SYS_capset, &[header.into(), data.into()], "capset");
}

/// The path of a thread's `attr`, for messages.
#[must_use]
pub fn path(pid: image_format::Pid, tid: image_format::Pid) -> String {
    layout::thread_file(pid, tid, "attr")
}

//! Memory policies, controls of threads and segments: values the kernel takes.

use super::{ADDRESS_LIMIT, Findings};
use crate::controls::{LockFuture, Mdwe, SyscallDispatch};
use crate::image::ProcessImage;
use crate::layout::{process_file, thread_file};
use crate::ldt::{LdtEntry, LdtFlags};
use crate::types::Pid;

/// LDT_ENTRIES (arch/x86/include/uapi/asm/ldt.h, v6.18).
const LDT_ENTRIES: u32 = 8192;

pub(super) fn check(pid: Pid, process: &ProcessImage, findings: &mut Findings) {
    let policy = &process.attr.memory;
    let known = Mdwe::PR_MDWE_REFUSE_EXEC_GAIN.0 | Mdwe::PR_MDWE_NO_INHERIT.0;
    let locks = LockFuture::MCL_FUTURE.0 | LockFuture::MCL_ONFAULT.0;
    let nice = process.attr.autogroup_nice;
    let problems = [
        (policy.mdwe.0 & !known != 0).then(|| format!("memory.mdwe: {:#x} is not known here", policy.mdwe.0)),
        (policy.mdwe == Mdwe::PR_MDWE_NO_INHERIT)
            .then(|| "memory.mdwe: PR_MDWE_NO_INHERIT goes with PR_MDWE_REFUSE_EXEC_GAIN".to_owned()),
        (policy.lock_future.0 & !locks != 0)
            .then(|| format!("memory.lock_future: {:#x} is not known here", policy.lock_future.0)),
        (policy.lock_future == LockFuture::MCL_ONFAULT)
            .then(|| "memory.lock_future: MCL_ONFAULT goes with MCL_FUTURE".to_owned()),
        nice.filter(|nice| !(-20..=19).contains(nice)).map(|nice| format!("autogroup_nice {nice}: it is -20 to 19")),
    ];
    for problem in problems.into_iter().flatten() {
        findings.add(&process_file(pid, "attr"), problem);
    }
    for (&tid, thread) in &process.threads {
        if let Some(problem) = thread.attr.controls.syscall_dispatch.as_ref().and_then(dispatch) {
            findings.add(&thread_file(pid, tid, "attr"), format!("controls.syscall_dispatch: {problem}"));
        }
        if thread.attr.login_uid == Some(u32::MAX) {
            findings.add(&thread_file(pid, tid, "attr"), "login_uid: 4294967295 is no user; null is none");
        }
    }
    segments(pid, &process.ldt, findings);
}

/// `task_set_syscall_user_dispatch` (kernel/entry/syscall_user_dispatch.c, v6.18).
fn dispatch(dispatch: &SyscallDispatch) -> Option<String> {
    let SyscallDispatch { selector, start, length } = dispatch;
    (selector.0 >= ADDRESS_LIMIT)
        .then(|| format!("selector: {selector} is no user space address"))
        .or_else(|| (start.0 != 0 && length.0 == 0).then(|| format!("length: no range begins at {start}")))
}

/// `write_ldt` (arch/x86/kernel/ldt.c, v6.18).
fn segments(pid: Pid, entries: &[LdtEntry], findings: &mut Findings) {
    let path = process_file(pid, "ldt");
    let known = [
        LdtFlags::seg_32bit,
        LdtFlags::read_exec_only,
        LdtFlags::limit_in_pages,
        LdtFlags::seg_not_present,
        LdtFlags::useable,
    ];
    let known = known.iter().fold(0, |all, flag| all | flag.0);
    let mut previous = None;
    for (index, entry) in (0..).zip(entries) {
        let LdtEntry { entry, base, limit, contents, flags } = entry;
        let problems = [
            (*entry >= LDT_ENTRIES).then(|| format!("entry {entry}: a table has {LDT_ENTRIES}")),
            previous
                .is_some_and(|previous| previous >= *entry)
                .then(|| format!("entry {entry}: not in ascending order")),
            (base.0 > u64::from(u32::MAX)).then(|| format!("base: {base} has more than 32 bits")),
            (limit.0 > 0xf_ffff).then(|| format!("limit: {limit} has more than 20 bits")),
            (*contents > 3).then(|| format!("contents {contents}: it is 0 to 3")),
            (*contents == 3 && !flags.contains(LdtFlags::seg_not_present))
                .then(|| "contents 3: conforming code must be seg_not_present".to_owned()),
            (flags.0 & !known != 0).then(|| format!("flags: {:#x} is not known here", flags.0)),
        ];
        for problem in problems.into_iter().flatten() {
            findings.line(&path, index, problem);
        }
        previous = Some(*entry);
    }
}

//! The files of a thread but for signals: registers that leave the thread in user mode, attributes the kernel takes.

use super::manifest::XSAVE_MIN;
use super::{ADDRESS_LIMIT, Findings, absolute, duration, task_name};
use crate::image::ThreadImage;
use crate::layout::thread_file;
use crate::manifest::Cpu;
use crate::thread::{Credentials, Directories, Frame, Resume, Scheduling, ThreadAttr};
use crate::types::Pid;
use crate::xstate::Xstate;

/// The largest NR_CPUS that x86-64 can be built with (arch/x86/Kconfig, v6.18).
const CPU_LIMIT: u32 = 8192;
/// Offsets in an XSAVE area (Intel SDM, volume 1, 13.4): the header, which begins with the components that are not in their initial state.
const XSTATE_BV: u32 = 512;
/// The control and status register of SSE.
const MXCSR: u32 = 24;
/// NGROUPS_MAX.
const GROUPS_LIMIT: usize = 65536;

pub(super) fn check(pid: Pid, tid: Pid, thread: &ThreadImage, cpu: &Cpu, findings: &mut Findings) {
    let path = |name: &str| thread_file(pid, tid, name);
    let mut report = |name: &str, problems: Vec<Option<String>>| {
        for problem in problems.into_iter().flatten() {
            findings.add(&path(name), problem);
        }
    };
    report("attr", attr(&thread.attr));
    report("attr", directories(tid == pid, thread.attr.directories.as_ref()));
    report("attr", credentials(&thread.attr.credentials));
    report("attr", scheduling(&thread.attr.scheduling));
    report("thread", vec![xstate(&thread.fpu.xstate, cpu)]);
    report("thread.frame", frame(&thread.frame));
    let base = |name: &str, base: u64| (base >= ADDRESS_LIMIT).then(|| format!("{name}: {base:#x} is no user address"));
    report("tls", vec![base("fs_base", thread.tls.fs_base.0), base("gs_base", thread.tls.gs_base.0)]);
}

fn attr(attr: &ThreadAttr) -> Vec<Option<String>> {
    let affinity = &attr.affinity;
    let ascending = affinity.is_sorted_by(|a, b| a < b);
    let rseq = attr.rseq.as_ref();
    vec![
        task_name(&attr.name),
        affinity.is_empty().then(|| "affinity: no CPU is left to run on".to_owned()),
        (!ascending).then(|| "affinity: not in ascending order".to_owned()),
        affinity.iter().find(|&&n| n >= CPU_LIMIT).map(|n| format!("affinity: no machine has a CPU {n}")),
        // sys_set_robust_list takes the size of the head and no other; 0 is one that was never set.
        (![0, 24].contains(&attr.robust_list.length))
            .then(|| format!("robust_list.length {}: the head has 24 bytes", attr.robust_list.length)),
        rseq.filter(|rseq| rseq.address.0 % 32 != 0 || rseq.address.0 >= ADDRESS_LIMIT || rseq.size < 32).map(|rseq| {
            format!("rseq: {} and {} bytes are not an area of 32 or more, aligned", rseq.address, rseq.size)
        }),
    ]
}

fn directories(first: bool, directories: Option<&Directories>) -> Vec<Option<String>> {
    let Some(Directories { cwd, root, umask, .. }) = directories else { return Vec::new() };
    let named = |name: &str, problem: Option<String>| problem.map(|problem| format!("directories.{name}: {problem}"));
    vec![
        first.then(|| "directories: those of the first thread are the process's".to_owned()),
        named("cwd", absolute(cwd)),
        named("root", absolute(root)),
        named("umask", (umask.0 > 0o777).then(|| format!("{umask} is beyond 0777"))),
    ]
}

/// What the kernel itself keeps true (capabilities(7)).
fn credentials(credentials: &Credentials) -> Vec<Option<String>> {
    let Credentials { inheritable, permitted, effective, ambient, .. } = credentials;
    // (uid_t) -1 stands for "unchanged" in every call that sets one.
    let none = |ids: &[u32]| ids.contains(&u32::MAX);
    let within = |name: &str, set: u64, other: &str, bound: u64| {
        (set & !bound != 0).then(|| format!("credentials.{name}: has capabilities that {other} has not"))
    };
    vec![
        none(&credentials.uid).then(|| "credentials.uid: 4294967295 is no user".to_owned()),
        none(&credentials.gid).then(|| "credentials.gid: 4294967295 is no group".to_owned()),
        none(&credentials.groups).then(|| "credentials.groups: 4294967295 is no group".to_owned()),
        (credentials.groups.len() > GROUPS_LIMIT)
            .then(|| format!("credentials.groups: {}, the kernel takes {GROUPS_LIMIT}", credentials.groups.len())),
        within("effective", effective.0, "permitted", permitted.0),
        within("ambient", ambient.0, "permitted", permitted.0),
        within("ambient", ambient.0, "inheritable", inheritable.0),
    ]
}

fn scheduling(scheduling: &Scheduling) -> Vec<Option<String>> {
    let Scheduling { policy, nice, priority, .. } = *scheduling;
    let real_time = [1, 2].contains(&policy);
    let priorities = if real_time { 1..=99 } else { 0..=0 };
    vec![
        (![0, 1, 2, 3, 5, 6].contains(&policy)).then(|| format!("scheduling.policy {policy}: no such policy")),
        (!(-20..=19).contains(&nice)).then(|| format!("scheduling.nice {nice}: it is -20 to 19")),
        (!priorities.contains(&priority))
            .then(|| format!("scheduling.priority {priority}: 1 to 99 for FIFO and RR, else 0")),
    ]
}

/// An XSAVE area in the standard format that this machine's kernel takes (arch/x86/kernel/fpu/xstate.c,
/// validate_user_xstate_header, v6.18).
fn xstate(state: &Xstate, cpu: &Cpu) -> Option<String> {
    let mut end = 0;
    for part in &state.0 {
        let whole = !part.bytes.0.is_empty() && part.bytes.0.len().is_multiple_of(8) && part.offset.is_multiple_of(64);
        if u64::from(part.offset) < end || !whole {
            let reason = "a part is whole words, and begins at a multiple of 64 bytes that is not in the one before it";
            return Some(format!("xstate: offset {}: {reason}", part.offset));
        }
        end = part.end();
    }
    if end > u64::from(cpu.xsave_size) {
        return Some(format!("xstate: ends at {end}, the manifest's xsave_size is {}", cpu.xsave_size));
    }
    let unknown = state.word(XSTATE_BV) & !cpu.xfeatures.0;
    if unknown != 0 {
        return Some(format!("xstate: has components {unknown:#x} that the manifest's xfeatures has not"));
    }
    if (XSTATE_BV + 8..XSAVE_MIN).step_by(8).any(|offset| state.word(offset) != 0) {
        return Some("xstate: its header is not that of the standard format".to_owned());
    }
    // 16 bits, and AMD's bit 17; the word's other half is its mask.
    let mxcsr = state.word(MXCSR) & 0xffff_ffff;
    (mxcsr & !0x2_ffff != 0).then(|| format!("xstate: MXCSR {mxcsr:#x} has reserved bits"))
}

fn frame(frame: &Frame) -> Vec<Option<String>> {
    let registers = &frame.registers;
    // __USER_CS and __USER_DS (arch/x86/include/asm/segment.h, v6.18): anything else is not 64-bit user mode.
    let exact = |name: &str, value: u64, selector: u64| {
        (value != selector).then(|| format!("registers.{name}: {value:#x}, of a 64-bit program it is {selector:#x}"))
    };
    let null_or_user = |name: &str, value: u64| {
        let bad = value > 0xffff || (value != 0 && value & 3 != 3);
        bad.then(|| format!("registers.{name}: {value:#x} is no selector of user mode"))
    };
    let user = |name: &str, value: u64, limit: u64| {
        (value >= limit).then(|| format!("registers.{name}: {value:#x} is no user space address"))
    };
    let resume = frame.syscall.as_ref().and_then(|syscall| match syscall.resume {
        Resume::Remaining(remaining) => duration(remaining),
        Resume::Again | Resume::Ended | Resume::Vfork(_) => None,
    });
    vec![
        exact("cs", registers.cs.0, 0x33),
        exact("ss", registers.ss.0, 0x2b),
        null_or_user("ds", registers.ds.0),
        null_or_user("es", registers.es.0),
        null_or_user("fs", registers.fs.0),
        null_or_user("gs", registers.gs.0),
        user("rip", registers.rip.0, ADDRESS_LIMIT),
        // An empty stack at the top of the address space ends where the guard page starts.
        user("rsp", registers.rsp.0, ADDRESS_LIMIT + 1),
        resume.map(|problem| format!("syscall.resume.remaining: {problem}")),
    ]
}

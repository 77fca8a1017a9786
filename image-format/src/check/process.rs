//! `process` and `attr` of a process: values the kernel takes.

use super::{ADDRESS_LIMIT, Findings, absolute, task_name};
use crate::image::ProcessImage;
use crate::layout::process_file;
use crate::process::{EndedThread, JobControl, Limit, MemoryLayout, Process};
use crate::signal::Signal;
use crate::types::{Address, Pid};

/// The kernel's resource limits (include/uapi/asm-generic/resource.h, v6.18), all of which a process has.
const LIMITS: [&str; 16] = [
    "RLIMIT_AS",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "RLIMIT_RSS",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
    "RLIMIT_SIGPENDING",
    "RLIMIT_STACK",
];

pub(super) fn check(pid: Pid, process: &ProcessImage, findings: &mut Findings) {
    let record = &process.process;
    let path = process_file(pid, "process");
    let mut field = |name: &str, problem: Option<String>| {
        if let Some(problem) = problem {
            findings.add(&path, format!("{name}: {problem}"));
        }
    };
    field("exe", absolute(&record.exe));
    field("cwd", absolute(&record.cwd));
    field("root", absolute(&record.root));
    let umask = record.umask;
    field("umask", (umask.0 > 0o777).then(|| format!("{umask} is beyond 0777")));
    field("job_control", job_control(record));
    for problem in record.first_thread_ended.iter().flat_map(first_thread_ended) {
        field("first_thread_ended", Some(problem));
    }
    for (name, limit) in &record.limits {
        field(&format!("limits.{name}"), limit_problem(name, limit));
    }
    for name in LIMITS.iter().filter(|&&name| !record.limits.contains_key(name)) {
        field(&format!("limits.{name}"), Some("missing: a process has all of them".to_owned()));
    }
    layout(&record.layout, &mut field);
    attr(pid, process, findings);
}

/// It ended by exit(2): a signal would have ended the whole process.
fn first_thread_ended(ended: &EndedThread) -> Vec<String> {
    let EndedThread { name, uid, gid, status } = ended;
    let none = |ids: &[u32]| ids.contains(&u32::MAX);
    let problems = [
        task_name(name),
        none(uid).then(|| "uid: 4294967295 is no user".to_owned()),
        none(gid).then(|| "gid: 4294967295 is no group".to_owned()),
        (status & !0xff00 != 0).then(|| format!("status {status:#x} is none of a thread that has called exit")),
    ];
    problems.into_iter().flatten().collect()
}

/// The kernel lets no other signal stop a process, and the first one of a pid namespace by SIGSTOP alone (kernel/signal.c,
/// get_signal, v6.18).
fn job_control(process: &Process) -> Option<String> {
    const SIGSTOP: Signal = Signal(19);
    const OTHERS: [Signal; 3] = [Signal(20), Signal(21), Signal(22)];
    let JobControl::Stopped(stopped) = process.job_control else { return None };
    let signal = stopped.signal;
    if signal != SIGSTOP && !OTHERS.contains(&signal) {
        return Some(format!("{signal} stops no process"));
    }
    (signal != SIGSTOP && process.pid.0 == 1).then(|| format!("{signal} does not stop the first process"))
}

fn limit_problem(name: &str, limit: &Limit) -> Option<String> {
    if !LIMITS.contains(&name) {
        return Some("no such limit".to_owned());
    }
    // None is infinity, which is above every number.
    let above = match (limit.soft, limit.hard) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(soft), Some(hard)) => soft > hard,
    };
    above.then(|| "the soft limit is above the hard one".to_owned())
}

/// What PR_SET_MM_MAP looks at (kernel/sys.c, validate_prctl_map_addr, v6.18), but for `mmap_min_addr`, which is the
/// machine's.
fn layout(layout: &MemoryLayout, field: &mut dyn FnMut(&str, Option<String>)) {
    let addresses = [
        ("start_code", layout.start_code),
        ("end_code", layout.end_code),
        ("start_data", layout.start_data),
        ("end_data", layout.end_data),
        ("start_brk", layout.start_brk),
        ("brk", layout.brk),
        ("start_stack", layout.start_stack),
        ("arg_start", layout.arg_start),
        ("arg_end", layout.arg_end),
        ("env_start", layout.env_start),
        ("env_end", layout.env_end),
    ];
    for (name, address) in addresses {
        let high = address.0 >= ADDRESS_LIMIT;
        field(&format!("layout.{name}"), high.then(|| format!("{address} is no user space address")));
    }
    let mut order = |name: &str, start: Address, end: Address, allowed: bool| {
        field(&format!("layout.{name}"), (!allowed).then(|| format!("the start {start} is not before the end {end}")));
    };
    let MemoryLayout { start_code, end_code, start_data, end_data, start_brk, brk, .. } = *layout;
    order("end_code", start_code, end_code, start_code < end_code);
    order("end_data", start_data, end_data, start_data <= end_data);
    order("brk", start_brk, brk, start_brk <= brk);
    order("arg_end", layout.arg_start, layout.arg_end, layout.arg_start <= layout.arg_end);
    order("env_end", layout.env_start, layout.env_end, layout.env_start <= layout.env_end);
    let auxv = layout.auxv.0.len();
    // Pairs of 64-bit words.
    let bad = !auxv.is_multiple_of(16) || auxv >= 4096;
    field("layout.auxv", bad.then(|| format!("{auxv} bytes are no auxiliary vector: pairs of 8 bytes, below 4096")));
}

fn attr(pid: Pid, process: &ProcessImage, findings: &mut Findings) {
    let path = process_file(pid, "attr");
    let attr = &process.attr;
    if attr.dumpable > 2 {
        findings.add(&path, format!("dumpable {}: it is 0, 1 or 2", attr.dumpable));
    }
    if !(-1000..=1000).contains(&attr.oom_score_adj) {
        findings.add(&path, format!("oom_score_adj {}: it is -1000 to 1000", attr.oom_score_adj));
    }
}

//! Which tasks keep a cgroup from being frozen, in words.

use std::fmt::Write;
use std::fs;

/// At most so many are named: one server that hangs can hold a thousand.
const NAMED: usize = 8;

/// Where a task sleeps that is stopped or counts as stopped: the freezer itself, a ptrace or job control stop, and a parent of
/// vfork(2). Names as in `kernel/signal.c` and `kernel/fork.c`, v6.18.
const STOPPED: [&str; 7] = [
    "get_signal",
    "do_freezer_trap",
    "ptrace_stop",
    "do_signal_stop",
    "do_jobctl_trap",
    "wait_for_vfork_done",
    "kernel_clone",
];

/// Names the tasks of these processes that are not stopped, with what each is doing.
pub(super) fn describe(pids: &[i32]) -> String {
    let mut text = String::new();
    let mut more = 0usize;
    let mut found = 0;
    for &pid in pids {
        for task in tasks(pid) {
            found += 1;
            if found > NAMED {
                more += 1;
                continue;
            }
            let separator = if text.is_empty() { "" } else { "; " };
            // Writing to a String does not fail.
            let _ = write!(text, "{separator}{task}");
        }
    }
    match (text.is_empty(), more) {
        (true, _) => {
            "no task was seen running when it was looked at: try again, or give it longer with --deadline".into()
        }
        (false, 0) => format!("{text}; end what these wait for, or give them longer with --deadline"),
        (false, more) => {
            format!("{text}; and {more} more; end what these wait for, or give them longer with --deadline")
        }
    }
}

/// One text for each task of the process that is not stopped.
fn tasks(pid: i32) -> Vec<String> {
    let directory = format!("/proc/{pid}/task");
    let Ok(entries) = fs::read_dir(&directory) else { return Vec::new() };
    let mut texts = Vec::new();
    for tid in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let read = |name: &str| fs::read_to_string(format!("{directory}/{tid}/{name}")).unwrap_or_default();
        let wchan = read("wchan");
        let wchan = wchan.trim();
        let stat = read("stat");
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()).unwrap_or('?');
        if matches!(state, 'Z' | 'X' | '?') || STOPPED.contains(&wchan) {
            continue;
        }
        let comm = read("comm");
        let syscall = read("syscall");
        let call = match syscall.split_whitespace().next() {
            None | Some("running") => "no system call".to_owned(),
            Some("-1") => "a fault or exception".to_owned(),
            Some(number) => format!("system call {number}"),
        };
        let place = if wchan.is_empty() || wchan == "0" { "on a processor".to_owned() } else { format!("in {wchan}") };
        texts.push(format!("thread {tid} ({}) of process {pid} is in state {state}, {place}, {call}", comm.trim()));
    }
    texts
}

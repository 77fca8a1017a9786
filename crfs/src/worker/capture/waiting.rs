//! When waits end whose call forgets it: asked while the container still runs.
//!
//! A task that is frozen has left the call it waited in, and of epoll_wait(2) and the like nothing then tells how long it would have
//! waited on. So just before the freeze the ends of such waits are read from the kernel stacks of the threads that wait, and
//! after it those are kept that the freeze itself has ended: the same call, and since then the thread went off the processor once,
//! into the freezer. Any other wait began within the last milliseconds, and begins again in full.

use crate::failure::Failure;
use crate::freezer::Cgroup;
use crate::resource::kernel::Kernel;
use crate::resource::proc::Proc;
use crate::resource::registers::{shorten, syscalls};
use crate::worker::thaw::interrupted;
use crfs_kstate::Jiffies;
use crfs_sys::pidfd;
use image_format::parallel;
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::os::fd::AsFd;

/// Threads that are looked at in a row.
const GROUP: usize = 64;

/// A thread that was seen waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    process: i32,
    thread: i32,
    call: i64,
    /// How often it had gone off the processor by itself.
    switches: u64,
    /// Nanoseconds of the host's CLOCK_MONOTONIC.
    end_ns: u64,
}

/// Looks at the threads of a running container. Those that cannot be read are left out.
pub(super) fn look(cgroup: &Cgroup, proc: &mut Proc, kernel: &Kernel) -> Result<Vec<Waiting>, Failure> {
    let mut threads = Vec::new();
    for process in cgroup.procs()? {
        // A process may end at any moment.
        let numbers = proc.numbers(format_args!("{process}/task")).unwrap_or_default();
        threads.extend(numbers.into_iter().map(|thread| (process, thread)));
    }
    // By all processors: it is a file of each thread, and most wait in other calls, or run.
    let groups: Vec<_> = threads.chunks(GROUP).collect();
    let mut calls = Vec::new();
    parallel::each(&groups, |group| calls_of(group), |found| calls.extend(found));
    let by_sockets = calls.iter().any(|&(_, _, call)| syscalls::socket_limit(call).is_some());
    // Without it those begin again in full.
    let jiffies = if by_sockets { Jiffies::now().ok() } else { None };
    let look = |(process, thread, call)| waiting(process, thread, call, proc, kernel, jiffies.as_ref());
    Ok(calls.into_iter().filter_map(look).collect())
}

/// Process, thread and number of the call, of those whose wait may be forgotten.
fn calls_of(threads: &[(i32, i32)]) -> Vec<(i32, i32, i64)> {
    let Ok(mut proc) = Proc::open() else { return Vec::new() };
    let waits = threads.iter().filter_map(|&(process, thread)| {
        let text = proc.text(format_args!("{process}/task/{thread}/syscall")).ok()?;
        let call = number(text).filter(|&call| shorten::applies(call));
        Some((process, thread, call.or_else(|| interrupted::on_socket(process, thread, text))?))
    });
    waits.collect()
}

fn waiting(
    process: i32,
    thread: i32,
    call: i64,
    proc: &mut Proc,
    kernel: &Kernel,
    jiffies: Option<&Jiffies>,
) -> Option<Waiting> {
    // Before the end is read: were it another wait by then, the count would tell afterwards.
    let switches = switches(process, thread, proc)?;
    let opened = pidfd::open(Pid::from_raw(thread), process != thread).ok()?;
    let (state, opened) = (kernel.parts().0, opened.as_fd());
    let end_ns = match syscalls::socket_limit(call) {
        Some(_) => state.socket_wait_end(opened, thread, jiffies?),
        None => state.wait_end(opened, thread),
    };
    let end_ns = end_ns.ok()??;
    Some(Waiting { process, thread, call, switches, end_ns })
}

/// The number of the system call a thread waits in.
fn call(process: i32, thread: i32, proc: &mut Proc) -> Option<i64> {
    number(proc.text(format_args!("{process}/task/{thread}/syscall")).ok()?)
}

/// "running", or "-1 SP PC", or "NUMBER ARG1 ..."
fn number(text: &str) -> Option<i64> {
    text.split_whitespace().next()?.parse().ok()
}

fn switches(process: i32, thread: i32, proc: &mut Proc) -> Option<u64> {
    let text = proc.text(format_args!("{process}/task/{thread}/status")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?.trim().parse().ok()
}

/// The ends of the waits that the freeze has ended, by thread. Call it when all are in the freezer and nobody has stopped them yet.
pub(super) fn ended_by_freeze(seen: Vec<Waiting>, proc: &mut Proc) -> BTreeMap<i32, u64> {
    let mut same = |was: &Waiting| {
        call(was.process, was.thread, proc) == Some(was.call)
            && switches(was.process, was.thread, proc) == Some(was.switches + 1)
    };
    seen.into_iter().filter(|was| same(was)).map(|wait| (wait.thread, wait.end_ns)).collect()
}

//! The first thaw after a restore: timers that count a length of time are set again to what remained in the image.
//!
//! They were armed by the build, and the container may have stood still for long. Nobody can set another process's timers, so the
//! calls are made in its first thread, while all its threads stand in ptrace stops and the container's cgroup is thawed already: nothing
//! runs in a frozen one. What the build's timers sent meanwhile is taken back: the kernel drops the signals of a POSIX timer that is set
//! again, and SIGALRM is taken off the queue unless it was there at the freeze.
//!
//! setitimer(2) always counts a length of time. Of POSIX timers on CLOCK_MONOTONIC and CLOCK_BOOTTIME the kernel does not keep how they
//! were set, and they are taken to; a date of CLOCK_REALTIME or CLOCK_TAI stays a date.
//!
//! Left as they are, which a note tells: timers of a process that job control has stopped, of one whose first thread hands
//! its system calls to itself (PR_SET_SYSCALL_USER_DISPATCH), or where the calls cannot be made.

use super::STOP_DEADLINE;
use crate::failure::Failure;
use crate::freezer::Cgroup;
use crate::registry::{CountedTimers, Record};
use crate::resource::container::Moment;
use crate::resource::proc::Proc;
use crate::resource::subject::{self, Process};
use crate::resource::{interval_timer, posix_timer, signal};
use crfs_tracee::{Batch, Gadget, HostPid, InjectError, Injector, SeizeOptions, Stopped, Tracee, stop_all};
use image_format::Pid;
use image_format::manifest::Clocks;
use image_format::seccomp::Seccomp;
use image_format::signal::{PendingSignal, Signal};
use image_format::thread::ThreadAttr;
use std::time::Instant;

/// A process whose threads all stand still for its timers to be set.
pub(super) struct Held<'a> {
    /// What it calls itself, and its first thread that lives.
    own_ids: (Pid, Pid),
    /// The first thread that lives first.
    threads: Vec<Tracee<Stopped>>,
    timers: &'a CountedTimers,
}

impl Held<'_> {
    /// The threads.
    pub(super) fn threads(&self) -> impl Iterator<Item = HostPid> {
        self.threads.iter().map(Tracee::tid)
    }
}

/// Stops the processes that have timers to be set. Call it while the container is frozen.
///
/// # Errors
/// When a task that lives cannot be read.
pub(super) fn hold<'a>(
    counted: &'a [CountedTimers],
    cgroup: &Cgroup,
    record: &Record,
    notes: &mut Vec<String>,
) -> Result<Vec<Held<'a>>, Failure> {
    let mut all = Vec::new();
    if counted.is_empty() {
        return Ok(all);
    }
    let subjects = subject::collect(&mut Proc::open()?, record)?;
    let of = |timers: &CountedTimers| subjects.processes.iter().find(|process| process.host == timers.host);
    for (timers, process) in counted.iter().filter_map(|timers| Some((timers, of(timers)?))) {
        if cgroup.has_frozen_inside(process.host)? {
            notes.push(left(timers.pid, "its own cgroup is frozen"));
            continue;
        }
        match stop(process, &timers.attr) {
            Ok(threads) => {
                let own_ids = (process.leader().own_id(), process.alive().own_id());
                all.push(Held { own_ids, threads, timers });
            }
            Err(reason) => notes.push(left(timers.pid, &reason)),
        }
    }
    Ok(all)
}

fn left(pid: Pid, reason: &str) -> String {
    format!("process {pid}: its timers have counted since the restore: {reason}")
}

/// Stops all threads of a process, or says why it has to be left alone; those that were stopped go on then.
fn stop(process: &Process, attr: &ThreadAttr) -> Result<Vec<Tracee<Stopped>>, String> {
    if attr.controls.syscall_dispatch.is_some() {
        return Err("its first thread handles its own system calls".to_owned());
    }
    let living = process.threads.iter().filter(|thread| !thread.has_ended());
    let tids: Vec<_> = living.map(|thread| crfs_sys::HostPid::new(thread.host)).collect();
    let count = tids.len();
    let stopped = stop_all(tids, Instant::now() + STOP_DEADLINE);
    let whole = stopped.stopped.len() == count;
    let first = stopped.stopped.first().filter(|first| whole && first.tid().raw() == process.alive().host);
    let Some(first) = first else { return Err("not all of its threads could be stopped".to_owned()) };
    if first.stop().group_stop().is_some() {
        return Err("job control has stopped it".to_owned());
    }
    if attr.seccomp != Seccomp::None {
        let options = SeizeOptions { suspend_seccomp: true, ..SeizeOptions::default() };
        first.set_options(options).map_err(|error| error.to_string())?;
    }
    Ok(stopped.stopped)
}

/// Sets the timers, and returns all threads, to be let go of. Call it when the container's cgroup has been thawed.
pub(super) fn set(held: Vec<Held<'_>>, notes: &mut Vec<String>) -> Vec<Tracee<Stopped>> {
    let mut all = Vec::new();
    for Held { own_ids, threads, timers } in held {
        let mut threads = threads.into_iter();
        let Some(first) = threads.next() else { continue };
        match set_in(first, own_ids, timers) {
            Ok(first) => all.push(first),
            Err(reason) => notes.push(left(timers.pid, &reason)),
        }
        all.extend(threads);
    }
    all
}

/// The thread is let go of if the timers cannot be set.
fn set_in(first: Tracee<Stopped>, own_ids: (Pid, Pid), timers: &CountedTimers) -> Result<Tracee<Stopped>, String> {
    let Some(gadget) = Gadget::of_program(&first) else { return Err("it has no vDSO".to_owned()) };
    let host = first.tid();
    let clocks = now(host.raw()).map_err(|failure| failure.to_string())?;
    let told = |error: InjectError| error.to_string();
    let mut injector = Injector::without_scratch(first, gadget).map_err(told)?;
    let ran = injector.run_singly(&calls(own_ids, timers, &clocks)).map_err(told);
    // Nothing else comes while every signal is blocked: one that cannot be blocked, and is sent just now.
    let held: Vec<i32> = injector.held().iter().map(|signal| signal.number).collect();
    let released = injector.release().map_err(told);
    for number in held {
        if let Ok(signal) = nix::sys::signal::Signal::try_from(number) {
            let _ = nix::sys::signal::kill(host.pid(), signal);
        }
    }
    match (ran, released) {
        (Ok(()), released) => released,
        (Err(reason), Ok(first)) => {
            // One that was killed meanwhile is gone.
            let _ = first.detach();
            Err(reason)
        }
        (Err(reason), Err(_)) => Err(reason),
    }
}

/// What the clocks show inside.
fn now(host: i32) -> Result<Clocks, Failure> {
    Moment::now()?.inside(host, &mut Proc::open()?)
}

fn calls((process, thread): (Pid, Pid), timers: &CountedTimers, now: &Clocks) -> Batch {
    let mut batch = Batch::new();
    let alarm = Signal(u8::try_from(libc::SIGALRM).unwrap_or_default());
    let waits = |signals: &[PendingSignal], signal: Signal| signals.iter().any(|pending| pending.signal == signal);
    for timer in &timers.interval {
        interval_timer::restore::disarm(&mut batch, timer.which);
        if !waits(&timers.pending, alarm) {
            // The thread's own, which is taken first, is queued again.
            signal::restore::take(&mut batch, alarm, 2);
            let own = timers.own_pending.iter().filter(|pending| pending.signal == alarm);
            signal::restore::pending(&mut batch, own, process, Some(thread));
        }
        interval_timer::restore::arm(&mut batch, &[timer]);
    }
    let queued = |signal| waits(&timers.pending, signal) || waits(&timers.own_pending, signal);
    posix_timer::restore::set_again(&mut batch, &timers.posix, timers.first, now, &queued);
    batch
}

//! Thaws: lets a frozen container run so that no program notices that it stood still.
//!
//! Stopping a task interrupts the system call it waits in. Most calls then start again by themselves; some answer EINTR, and
//! programs that were never interrupted before may not be written for that. Where this has happened the answer in the task's
//! registers is turned into "start again", while everything is still frozen. This is the one write a thaw makes; the first after a
//! restore sets timers again too.

pub(super) mod interrupted;
mod sockets;
mod timerfds;
mod timers;

use super::{Report, settle};
use crate::failure::{Doing, Failure, Kind};
use crate::freezer::Cgroup;
use crate::registry::{Countdowns, HostThread, Record, Registry, Timing};
use crate::resource::registers::shorten::{self, Place, begin_again, shorten};
use crate::resource::registers::syscalls;
use crfs_tracee::{HostPid, Stopped, Tracee, UserRegs, stop_all};
use image_format::Timespec;
use sockets::SocketWait;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// For frozen tasks to stop for their tracer: 0.2 ms each, and a thousand of them in parallel.
const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// Errno as it stands in a result register.
const EINTR: u64 = 4u64.wrapping_neg();
/// `ERESTARTNOHAND`, `include/linux/errno.h`: the call starts again unless a signal handler runs first, and then answers EINTR.
/// That is what signal(7) says of these calls, which never start again after a handler, whatever SA_RESTART says.
const RESTART: u64 = 514u64.wrapping_neg();

/// Runs the job.
pub(super) fn run(registry: &Registry, name: &str) -> Report {
    let mut report = Report::default();
    if let Err(failure) = thaw(registry, name, &mut report) {
        report.failure = Some(failure);
    }
    report
}

fn thaw(registry: &Registry, name: &str, report: &mut Report) -> Result<(), Failure> {
    let container = registry.container(name)?;
    let record = container.existing()?;
    let cgroup = Cgroup::at(&record.cgroup);
    if cgroup.is_to_freeze()? {
        // A tracer that was killed has let go of them just now: what a task waits in can be told only once it is back in the freezer.
        settle::wait(cgroup.procs()?.into_iter().map(HostPid::new))?;
    }
    let countdowns = if record.restored { container.countdowns()? } else { Countdowns::default() };
    let_run(&record, container.waits()?, &countdowns, report)
}

/// Lets frozen tasks run. `ends_ns` is until when they wait, by thread, as the host numbers it, in nanoseconds of the host's
/// CLOCK_MONOTONIC, where the call itself has forgotten it; `countdowns` is what is set again.
///
/// # Errors
/// When a thread cannot be stopped, or a descriptor is not what the image says.
pub(super) fn let_run(
    record: &Record,
    ends_ns: BTreeMap<i32, u64>,
    countdowns: &Countdowns,
    report: &mut Report,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let cgroup = Cgroup::at(&record.cgroup);
    let pids = cgroup.procs()?;
    let living = BTreeSet::from_iter(&pids);
    // The id of one that was killed since may be somebody else's.
    let lives = |thread: HostThread| {
        let task = || Path::new("/proc").join(format!("{}/task/{}", thread.process, thread.thread));
        living.contains(&thread.process) && (thread.thread == thread.process || task().exists())
    };
    let anew = countdowns.waits.iter().filter(|wait| lives(wait.thread));
    let anew: BTreeMap<i32, Timespec> = anew.map(|wait| (wait.thread.thread, wait.remaining)).collect();
    let again = anew.keys().map(|&tid| HostPid::new(tid));
    let tids: BTreeSet<HostPid> = interrupted::threads(&pids).into_iter().chain(again).collect();
    let by_sockets = repair(tids.into_iter().collect(), &Waits { ends_ns, anew }, report)?;
    report.timings.push(timing("repair interrupted calls", begun));
    let begun = Instant::now();
    countdowns.timerfds.iter().filter(|timerfd| lives(timerfd.thread)).try_for_each(timerfds::set)?;
    let held = timers::hold(&countdowns.timers, &cgroup, record, &mut report.notes)?;
    let others = sockets::hold(&by_sockets, &cgroup, held.iter().flat_map(timers::Held::threads))?;
    report.timings.push(timing("set timers again", begun));
    let begun = Instant::now();
    cgroup.thaw()?;
    let stopped = timers::set(held, &mut report.notes).into_iter().chain(others);
    sockets::begin(by_sockets, stopped.collect(), &mut report.notes);
    report.timings.push(timing("thaw", begun));
    Ok(())
}

/// Turns EINTR into "start again" in the threads whose call was interrupted, for the time that remains until the end of the wait where
/// that is known. Returns the waits whose time limit is a socket's.
fn repair(tids: Vec<HostPid>, waits: &Waits, report: &mut Report) -> Result<Vec<SocketWait>, Failure> {
    let now = crfs_sys::time::clock_ns(libc::CLOCK_MONOTONIC).doing(|| "reading CLOCK_MONOTONIC")?;
    let stopped = stop_all(tids, Instant::now() + STOP_DEADLINE);
    for (tid, error) in stopped.refused {
        report.notes.push(format!("thread {tid}: {error}; the call it waits in may return EINTR"));
    }
    let mut late = Vec::new();
    for tracee in stopped.late {
        late.push(tracee.tid());
    }
    let mut by_sockets = Vec::new();
    for tracee in stopped.stopped {
        let tid = tracee.tid();
        let left = waits.ends_ns.get(&tid.raw()).map(|&end| remaining(end, now));
        let repaired = tracee.regs().and_then(|regs| {
            let until = left.or_else(|| waits.anew.get(&tid.raw()).copied());
            by_sockets.extend(until.and_then(|left| SocketWait::of(&tracee, &regs, left, now)));
            if let Some(mended) = mended(tid, regs, left) {
                tracee.set_regs(&mended)?;
            } else if let Some(&left) = waits.anew.get(&tid.raw()) {
                tracee.set_regs(&shortened(tid, regs, left, begin_again))?;
            }
            tracee.detach()
        });
        match repaired {
            Err(error) if !error.is_gone() => return Err(error).doing(|| format!("thread {tid}: thawing")),
            _ => {}
        }
    }
    if late.is_empty() {
        return Ok(by_sockets);
    }
    Err(Failure::new(
        Kind::Deadline,
        format!(
            "threads {late:?} are in a frozen cgroup and do not stop for their tracer; \
             echo 0 > cgroup.freeze thaws them without it"
        ),
    ))
}

/// Turns EINTR into "start again" in a stopped thread, if it is in a call that answers so when it is stopped. `end_ns` is when the
/// wait was to end, in nanoseconds of the host's CLOCK_MONOTONIC, where that is known.
///
/// # Errors
/// When its registers cannot be had although it is there.
pub(super) fn mend(tracee: &Tracee<Stopped>, end_ns: Option<u64>) -> Result<(), Failure> {
    let now = crfs_sys::time::clock_ns(libc::CLOCK_MONOTONIC).doing(|| "reading CLOCK_MONOTONIC")?;
    let left = end_ns.map(|end| remaining(end, now));
    let done = tracee.regs().and_then(|regs| {
        let leaks = u64::try_from(regs.orig_rax.cast_signed()).is_ok_and(syscalls::leaks_eintr)
            || shorten::begins_in_full(regs.orig_rax.cast_signed());
        let mended = if leaks { mended(tracee.tid(), regs, left) } else { None };
        mended.map_or(Ok(()), |mended| tracee.set_regs(&mended))
    });
    match done {
        Err(error) if !error.is_gone() => Err(error).doing(|| format!("thread {}: mending its call", tracee.tid())),
        _ => Ok(()),
    }
}

fn remaining(end_ns: u64, now_ns: i64) -> Timespec {
    Timespec::from_ns(i128::from(end_ns) - i128::from(now_ns))
}

/// The registers with which an interrupted call starts again, for the time that is left where that is known.
fn mended(tid: HostPid, regs: UserRegs, left: Option<Timespec>) -> Option<UserRegs> {
    // Not negative: it is in a system call, and that is not one that a handler has just returned to.
    let call = regs.orig_rax.cast_signed();
    let interrupted = call >= 0 && (regs.rax == EINTR || (regs.rax == RESTART && shorten::begins_in_full(call)));
    let again = UserRegs { rax: RESTART, ..regs };
    interrupted.then(|| left.map_or(again, |left| shortened(tid, again, left, shorten)))
}

/// How long waits are to go on, by thread, as the host numbers it.
struct Waits {
    /// Until when, in nanoseconds of the host's CLOCK_MONOTONIC, where the call itself has forgotten it.
    ends_ns: BTreeMap<i32, u64>,
    /// For how long, after a restore: the call would count the time since the build.
    anew: BTreeMap<i32, Timespec>,
}

/// The registers to wait on with for so long. Where there is no room below the stack the call goes on as it would.
fn shortened(
    tid: HostPid,
    regs: UserRegs,
    left: Timespec,
    how: impl Fn(&mut UserRegs, Timespec) -> Option<Place>,
) -> UserRegs {
    let mut shorter = regs;
    match how(&mut shorter, left) {
        Some(place) if crfs_sys::memory::write(tid.pid(), place.address, &place.bytes).is_err() => regs,
        _ => shorter,
    }
}

fn timing(what: &str, begun: Instant) -> Timing {
    Timing { what: what.to_owned(), us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX) }
}

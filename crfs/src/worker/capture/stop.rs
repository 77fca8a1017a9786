//! Has every thread of a frozen container stand still for reading, and lets go of them again.
//!
//! Most are in the freezer, where the kernel's memory tells all that is asked. Whoever is not there, or has what only a tracer tells, is
//! stopped by ptrace, which wakes it, and takes as long as much of what is read.

use super::records::Threads;
use super::{Job, waiting};
use crate::failure::{Doing, Failure, Kind};
use crate::registry::Thawed;
use crate::resource::container::Moment;
use crate::resource::io_uring;
use crate::resource::proc::{Stat, Status};
use crate::resource::process::vfork::{self, Stuck, Vfork};
use crate::resource::still::Still;
use crate::resource::subject::{self, Subjects};
use crate::worker::laps::Laps;
use crate::worker::thaw;
use crfs_tracee::{HostPid, StopAll, Stopped, Tracee, Waited, stop_all};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A frozen task stops for its tracer within a fraction of a millisecond, and a thousand within a few. Whatever takes longer is looked
/// at: it may be the parent of a vfork.
const PROMPTLY: Duration = Duration::from_millis(20);
/// On a busy machine it may take longer; or it waits for something in the kernel.
const PATIENCE: Duration = Duration::from_millis(500);
/// For the tasks to be back in the freezer, when the deadline for the freeze leaves less.
const SETTLE: Duration = Duration::from_secs(5);
/// How long a child of vfork(2) is let run: it reaches its exec in less.
const BRIEFLY: Duration = Duration::from_millis(2);
const PAUSE: Duration = Duration::from_micros(50);
/// How long requests of io_uring may go on.
const REQUESTS: Duration = Duration::from_secs(2);
/// How long of it all tasks stand still at a time: a request that a thread of the kernel's was to do, and has not begun, waits for the
/// thaw, since such threads are frozen with the task that they work for (`io_wq_worker` in io_uring/io-wq.c, v6.18).
const REQUESTS_FROZEN: Duration = Duration::from_millis(100);
/// Between two looks whether they have ended.
const REQUEST_PAUSE: Duration = Duration::from_millis(1);

/// The container's tasks, and the handles of their threads unless something forbids to take them.
pub(super) struct Held {
    pub(super) subjects: Subjects,
    /// When all of them stood still.
    pub(super) moment: Moment,
    /// How long the container had not been frozen then.
    pub(super) thawed: Option<Thawed>,
    pub(super) threads: Option<Threads>,
}

/// Has all threads stand still, and lists them. A parent of vfork(2) gets a short thaw, as often as the deadline allows; one whose child does not
/// go on is left where it waits.
pub(super) fn hold(job: &mut Job, end: Instant, laps: &mut Laps) -> Result<Held, Failure> {
    let requests_end = end.min(Instant::now() + REQUESTS);
    let mut requests_thaw = Instant::now() + REQUESTS_FROZEN;
    loop {
        let moment = Moment::now()?;
        let thawed = job.cgroup.thawed()?;
        let frozen = frozen(job)?;
        laps.lap("tasks");
        let mut tids = job.cgroup.threads()?;
        // The stub has nothing that is captured.
        tids.retain(|&tid| job.record.stub_init.is_none_or(|stub| stub.pid != tid) && !frozen.contains(&tid));
        let went_on = went_on(job);
        tids.retain(|tid| !job.waiting.contains_key(tid) && !went_on.contains(tid));
        let mut stopped = stop(tids, PROMPTLY);
        stopped.late.extend(went_on.into_iter().map(|tid| Tracee::adopt(HostPid::new(tid))));
        if !stopped.late.iter().any(|task| waits(job, task.tid().raw())) {
            stopped.wait_for_late(Instant::now() + PATIENCE);
        }
        laps.lap("seize");
        if let Some(late) = stopped.late.first().map(Tracee::tid) {
            let shown = describe(job, late.raw());
            let stuck = abandon(job, stopped, Some(&frozen), end)?;
            // They are ours until this worker ends, and stand where they wait.
            job.waiting.extend(stuck.pairs());
            breathe(job, end, &shown)?;
            continue;
        }
        if let Some((tid, error)) = stopped.refused.first() {
            let failure = Failure::from_error(error).within(format!("{}: stopping it", describe(job, tid.raw())));
            abandon(job, stopped, None, end)?;
            // Somebody else may trace it, which is an obstacle and is told as one.
            let subjects = subject::collect(&mut job.proc, &job.record)?;
            let mut threads = subjects.processes.iter().flat_map(|process| &process.threads);
            return match threads.any(|thread| thread.status.tracer != 0) {
                true => Ok(Held { subjects, moment, thawed, threads: None }),
                false => Err(failure),
            };
        }
        if let Some((tid, exit)) = stopped.gone.first() {
            // Killed while frozen. What it leaves is listed anew.
            let shown = format!("task {tid} (as the host numbers it) ended ({exit})");
            abandon(job, stopped, None, end)?;
            if Instant::now() >= end {
                return Err(Failure::new(Kind::Stale, format!("{shown} while it was to be captured; freeze again")));
            }
            continue;
        }
        let listed = list(job, &stopped.stopped, &frozen);
        laps.lap("tasks");
        return match listed {
            // A task is told of their ends when it is in the freezer, and not while it is in a tracer's hands.
            Ok(subjects) if Instant::now() < requests_end && io_uring::under_way(&subjects, &mut job.kernel)? => {
                let thaws = Instant::now() >= requests_thaw;
                abandon(job, stopped, thaws.then_some(&frozen), end)?;
                if thaws {
                    breathe(job, end, "a task with requests of io_uring")?;
                    requests_thaw = Instant::now() + REQUESTS_FROZEN;
                } else {
                    std::thread::sleep(REQUEST_PAUSE);
                }
                continue;
            }
            Ok(subjects) => {
                let still = |tracee: Tracee<Stopped>| (tracee.tid().raw(), Still::Stopped(tracee));
                let unstopped = job.waiting.keys().chain(&frozen);
                let unstopped = unstopped.map(|&tid| (tid, Still::Frozen(HostPid::new(tid))));
                let threads = stopped.stopped.into_iter().map(still).chain(unstopped).collect();
                Ok(Held { subjects, moment, thawed, threads: Some(threads) })
            }
            Err(failure) => {
                // A thaw cannot seize what is still seized.
                abandon(job, stopped, None, end)?;
                Err(failure)
            }
        };
    }
}

fn stop(tids: impl IntoIterator<Item = i32>, patience: Duration) -> StopAll {
    stop_all(tids.into_iter().map(HostPid::new).collect(), Instant::now() + patience)
}

/// Those that waited in vfork when they were met, and do so no more.
fn went_on(job: &mut Job) -> Vec<i32> {
    let Job { waiting, proc, .. } = job;
    let over = waiting.iter().filter(|&(&parent, &child)| vfork::child(parent, proc) != Some(child));
    let over: Vec<i32> = over.map(|(&parent, _)| parent).collect();
    waiting.retain(|parent, _| !over.contains(parent));
    over
}

/// The threads that are read where they stand in the freezer: those of processes of which nothing is asked that only a tracer tells, and
/// nobody is stopped by job control, traced, or waiting in vfork.
fn frozen(job: &mut Job) -> Result<BTreeSet<i32>, Failure> {
    job.kernel.forget_tasks();
    let mut processes = job.cgroup.procs()?;
    processes.retain(|&process| job.record.stub_init.is_none_or(|stub| stub.pid != process));
    Ok(processes.into_iter().filter_map(|process| job.kernel.find_frozen(process)).flatten().collect())
}

/// Who the tasks are that stand still.
fn list(job: &mut Job, stopped: &[Tracee<Stopped>], frozen: &BTreeSet<i32>) -> Result<Subjects, Failure> {
    job.kernel.find_tracees()?;
    let seen =
        |tracee: &Tracee<Stopped>| (tracee.tid().raw(), if tracee.stop().group_stop().is_some() { b'T' } else { b'S' });
    let unstopped = job.waiting.keys().chain(frozen).map(|&tid| (tid, b'S'));
    let states = unstopped.chain(stopped.iter().map(seen)).collect();
    let subjects = subject::held(&mut job.proc, &job.kernel, &job.record, &states)?;
    if subjects.ids.contains_key(&subjects.init) {
        return Ok(subjects);
    }
    Err(Failure::new(
        Kind::WrongState,
        format!("{}: its first process has ended; `crctl ls` shows the state", job.record.name),
    ))
}

/// Whether a task is in a wait that neither freezer nor tracer ends. A frozen one is S, or T by job control.
fn waits(job: &mut Job, tid: i32) -> bool {
    Stat::read(&mut job.proc, &format!("{tid}/stat")).is_ok_and(|stat| stat.state == b'D')
}

/// Process, thread (both as the host numbers them) and state of every thread.
fn threads(subjects: &Subjects) -> impl Iterator<Item = (i32, i32, u8)> {
    subjects
        .processes
        .iter()
        .flat_map(|process| process.threads.iter().map(|thread| (process.host, thread.host, thread.stat.state)))
}

fn describe(job: &mut Job, host: i32) -> String {
    let name = Stat::read(&mut job.proc, &format!("{host}/stat")).map(|stat| stat.comm).unwrap_or_default();
    let tid = Status::read(&mut job.proc, &format!("{host}/status")).map_or(0, |status| status.own_pid());
    format!("task {tid} ({}, {host} on the host)", String::from_utf8_lossy(&name))
}

/// Lets the container run for a moment, so that a child of vfork(2) gets to its exec, and requests of io_uring to their end.
fn breathe(job: &mut Job, end: Instant, shown: &str) -> Result<(), Failure> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Failure::new(
            Kind::Deadline,
            format!(
                "{}: {shown} cannot be stopped in time: it waits for a child of vfork, or for a server or disk; \
                 try again, or give it longer with --deadline",
                job.record.name
            ),
        ));
    }
    job.cgroup.thaw()?;
    std::thread::sleep(BRIEFLY);
    // Whoever waits now does so anew, or for what remained.
    let seen = waiting::look(&job.cgroup, &mut job.proc, &job.kernel)?;
    job.cgroup.freeze(left)?;
    job.waits = waiting::ended_by_freeze(seen, &mut job.proc);
    job.container.write_waits(&job.waits)
}

/// Lets go of everything after a stop that did not succeed, but for the parents of vfork whose children do not go on: the end of this
/// worker lets go of those. With `frozen`, who was not stopped, the container runs then, as it must where some have not stopped.
fn abandon(
    job: &mut Job,
    mut stopped: StopAll,
    frozen: Option<&BTreeSet<i32>>,
    end: Instant,
) -> Result<Stuck, Failure> {
    let mut stuck = Stuck::default();
    let thaws = frozen.is_some();
    if let Some(others) = frozen.map(|tids| stop(tids.iter().copied(), PATIENCE)) {
        stopped.stopped.extend(others.stopped);
        stopped.late.extend(others.late);
    }
    for tracee in stopped.stopped {
        if thaws {
            thaw::mend(&tracee, job.waits.get(&tracee.tid().raw()).copied())?;
        }
        detach(tracee)?;
    }
    if thaws {
        job.cgroup.thaw()?;
    }
    for tracee in stopped.late {
        // It stops when it can, which the thaw brings about, and has to be let go of then.
        let tid = tracee.tid();
        let end = end.max(Instant::now() + PATIENCE);
        let mut look = Vfork::of(tid.raw());
        let mut running = tracee;
        loop {
            let slice = end.min(Instant::now() + PROMPTLY);
            running = match running.wait(slice).doing(|| format!("task {tid}: waiting for it to stop"))? {
                Waited::Stopped(tracee) => break detach(tracee)?,
                Waited::Gone(_) => break,
                Waited::Running(_) if look.stays(&mut job.proc) => break stuck.add(look),
                Waited::Running(tracee) if Instant::now() < end => tracee,
                Waited::Running(_) => {
                    return Err(Failure::new(
                        Kind::Deadline,
                        format!(
                            "task {tid} (as the host numbers it) neither freezes nor stops: it waits for a server or disk"
                        ),
                    ));
                }
            }
        }
    }
    Ok(stuck)
}

fn detach(tracee: Tracee<Stopped>) -> Result<(), Failure> {
    let tid = tracee.tid();
    match tracee.detach() {
        Err(error) if !error.is_gone() => Err(error).doing(|| format!("task {tid}: letting go of it")),
        _ => Ok(()),
    }
}

/// Lets go of all threads, and waits until they are back in the freezer: their processor time stands still from then on. A debug build
/// looks first whether a tracer is told the same of those that were not stopped.
pub(super) fn release(job: &mut Job, held: &mut Held, end: Instant) -> Result<(), Failure> {
    let Some(mut threads) = held.threads.take() else { return Ok(()) };
    if cfg!(debug_assertions) {
        compare(job, &mut threads)?;
    }
    let mut let_go = BTreeSet::new();
    for (tid, still) in threads {
        match still {
            Still::Stopped(tracee) => {
                let_go.insert(tid);
                detach(tracee)?;
            }
            Still::Frozen(_) if job.waiting.contains_key(&tid) || job.kernel.is_there(tid) => {}
            Still::Frozen(_) => {
                let reason = format!("task {tid} (as the host numbers it) ended while it was captured; freeze again");
                return Err(Failure::new(Kind::Stale, reason));
            }
        }
    }
    let end = end.max(Instant::now() + SETTLE);
    for (process, thread, state) in self::threads(&held.subjects) {
        while let_go.contains(&thread) && !matches!(state, b'Z' | b'X') && is_moving(job, process, thread)? {
            wait(end, || describe(job, thread))?;
        }
    }
    while !job.cgroup.is_frozen()? {
        wait(end, || "a task of the container".to_owned())?;
    }
    Ok(())
}

/// Stops those that were read where they stand in the freezer, and compares what ptrace tells of them.
fn compare(job: &mut Job, threads: &mut Threads) -> Result<(), Failure> {
    let frozen: Vec<i32> = threads.keys().copied().filter(|tid| !job.waiting.contains_key(tid)).collect();
    let unstopped = |tid: &i32| matches!(threads.get(tid), Some(Still::Frozen(_)));
    for tracee in stop(frozen.into_iter().filter(unstopped), PATIENCE).stopped {
        let (tid, still) = (tracee.tid(), Still::Stopped(tracee));
        let compared = still.compare(&format!("task {tid} (as the host numbers it)"), &mut job.kernel);
        threads.insert(tid.raw(), still);
        compared?;
    }
    Ok(())
}

/// Whether a thread that was let go of is still on its way: traced, or running.
fn is_moving(job: &mut Job, process: i32, thread: i32) -> Result<bool, Failure> {
    if let Some(at_rest) = job.kernel.is_at_rest(thread) {
        return Ok(!at_rest);
    }
    let stat = Stat::read(&mut job.proc, &format!("{process}/task/{thread}/stat"))?;
    Ok(matches!(stat.state, b't' | b'R'))
}

fn wait(end: Instant, shown: impl FnOnce() -> String) -> Result<(), Failure> {
    if Instant::now() >= end {
        let shown = shown();
        return Err(Failure::new(Kind::Deadline, format!("{shown} did not go back into the freezer")));
    }
    std::thread::sleep(PAUSE);
    Ok(())
}

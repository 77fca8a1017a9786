//! Stops every thread of a frozen container for reading, and lets go of them again.

use super::super::survey;
use super::{Job, Laps};
use crate::failure::{Doing, Failure, Kind};
use crate::resource::Findings;
use crate::resource::container::Moment;
use crate::resource::proc::Stat;
use crate::resource::subject::{self, Subjects};
use crfs_tracee::{HostPid, StopAll, Stopped, Tracee, stop_all};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A frozen task stops for its tracer within a fraction of a millisecond, and a thousand within a few. Whatever takes longer is the
/// parent of a vfork or waits for something in the kernel.
const PATIENCE: Duration = Duration::from_millis(500);
/// For the tasks to be back in the freezer, when the deadline for the freeze leaves less.
const SETTLE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_micros(50);

/// The container's tasks, and the handles of their threads unless something forbids to take them.
pub(super) struct Held {
    pub(super) subjects: Subjects,
    /// When all of them stood still.
    pub(super) moment: Moment,
    pub(super) tracees: Option<BTreeMap<i32, Tracee<Stopped>>>,
}

/// Lists the tasks, finds the obstacles that /proc shows, and stops all threads. A parent of vfork(2) gets a short thaw, as often as
/// the deadline allows.
pub(super) fn hold(job: &mut Job, end: Instant, findings: &mut Findings, laps: &mut Laps) -> Result<Held, Failure> {
    loop {
        let moment = Moment::now()?;
        let subjects = subject::collect(&mut job.proc, &job.record)?;
        if !subjects.processes.iter().any(|process| process.host == subjects.init) {
            return Err(Failure::new(
                Kind::WrongState,
                format!("{}: its first process has ended; `crctl ls` shows the state", job.record.name),
            ));
        }
        laps.lap("tasks");
        // A frozen task is S, or T by job control. D is a wait that neither freezer nor tracer ends.
        let waiting = threads(&subjects).find(|(_, _, state)| *state == b'D');
        if let Some((_, host, _)) = waiting {
            let shown = describe(&subjects, host);
            breathe(job, end, &shown)?;
            continue;
        }
        let mut found = Findings::default();
        survey::look(&job.record, &subjects, &mut job.proc, &mut found)?;
        laps.lap("obstacles");
        if subjects.processes.iter().flat_map(|process| &process.threads).any(|thread| thread.status.tracer != 0) {
            merge(findings, found);
            return Ok(Held { subjects, moment, tracees: None });
        }
        let tids = threads(&subjects).filter(|(_, _, state)| !matches!(state, b'Z' | b'X'));
        let tids: Vec<HostPid> = tids.map(|(_, host, _)| HostPid::new(host)).collect();
        let stopped = stop_all(tids, Instant::now() + PATIENCE);
        if let Some(late) = stopped.late.first().map(Tracee::tid) {
            let shown = describe(&subjects, late.raw());
            abandon(job, stopped, end)?;
            breathe(job, end, &shown)?;
            continue;
        }
        if let Some((tid, error)) = stopped.refused.first() {
            let failure = Failure::from_error(error).within(format!("{}: stopping it", describe(&subjects, tid.raw())));
            abandon(job, stopped, end)?;
            return Err(failure);
        }
        if let Some((tid, exit)) = stopped.gone.first() {
            // Killed while frozen. What it leaves is listed anew.
            let shown = format!("{} ended ({exit})", describe(&subjects, tid.raw()));
            abandon(job, stopped, end)?;
            if Instant::now() >= end {
                return Err(Failure::new(Kind::Stale, format!("{shown} while it was to be captured; freeze again")));
            }
            continue;
        }
        job.kernel.find_tracees()?;
        merge(findings, found);
        laps.lap("seize");
        let tracees = stopped.stopped.into_iter().map(|tracee| (tracee.tid().raw(), tracee)).collect();
        return Ok(Held { subjects, moment, tracees: Some(tracees) });
    }
}

fn merge(findings: &mut Findings, found: Findings) {
    findings.blockers.extend(found.blockers);
    findings.notes.extend(found.notes);
}

/// Process, thread (both as the host numbers them) and state of every thread.
fn threads(subjects: &Subjects) -> impl Iterator<Item = (i32, i32, u8)> {
    subjects
        .processes
        .iter()
        .flat_map(|process| process.threads.iter().map(|thread| (process.host, thread.host, thread.stat.state)))
}

fn describe(subjects: &Subjects, host: i32) -> String {
    let all = subjects.processes.iter().flat_map(|process| &process.threads);
    let found = all.into_iter().find(|thread| thread.host == host);
    let name = found.map_or_else(String::new, |thread| String::from_utf8_lossy(&thread.stat.comm).into_owned());
    format!("task {} ({name}, {host} on the host)", found.map_or(0, |thread| thread.tid.0))
}

/// Lets the container run for a moment, so that a child of vfork(2) gets to its exec.
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
    // Whoever waits now does so anew.
    job.waits.clear();
    job.container.write_waits(&job.waits)?;
    job.cgroup.thaw_briefly(left)
}

/// Lets go of everything after a stop that did not succeed.
fn abandon(job: &Job, stopped: StopAll, end: Instant) -> Result<(), Failure> {
    for tracee in stopped.stopped {
        detach(tracee)?;
    }
    if !stopped.late.is_empty() {
        job.cgroup.thaw()?;
    }
    for tracee in stopped.late {
        // It stops when it can, which the thaw brings about, and has to be let go of then.
        let tid = tracee.tid();
        match tracee.wait(end.max(Instant::now() + PATIENCE)).doing(|| format!("task {tid}: waiting for it to stop"))? {
            crfs_tracee::Waited::Stopped(tracee) => detach(tracee)?,
            crfs_tracee::Waited::Gone(_) => {}
            crfs_tracee::Waited::Running(_) => {
                return Err(Failure::new(
                    Kind::Deadline,
                    format!(
                        "task {tid} (as the host numbers it) neither freezes nor stops: it waits for a server or disk"
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn detach(tracee: Tracee<Stopped>) -> Result<(), Failure> {
    let tid = tracee.tid();
    match tracee.detach() {
        Err(error) if !error.is_gone() => Err(error).doing(|| format!("task {tid}: letting go of it")),
        _ => Ok(()),
    }
}

/// Lets go of all threads, and waits until they are back in the freezer: their processor time stands still from then on.
pub(super) fn release(job: &mut Job, held: &mut Held, end: Instant) -> Result<(), Failure> {
    let Some(tracees) = held.tracees.take() else { return Ok(()) };
    for tracee in tracees.into_values() {
        detach(tracee)?;
    }
    let end = end.max(Instant::now() + SETTLE);
    for (process, thread, state) in threads(&held.subjects) {
        if matches!(state, b'Z' | b'X') {
            continue;
        }
        let path = format!("{process}/task/{thread}/stat");
        // Seen as traced or running: on its way.
        while matches!(Stat::read(&mut job.proc, &path)?.state, b't' | b'R') {
            wait(end, &describe(&held.subjects, thread))?;
        }
    }
    while !job.cgroup.is_frozen()? {
        wait(end, "a task of the container")?;
    }
    Ok(())
}

fn wait(end: Instant, shown: &str) -> Result<(), Failure> {
    if Instant::now() >= end {
        return Err(Failure::new(Kind::Deadline, format!("{shown} did not go back into the freezer")));
    }
    std::thread::sleep(PAUSE);
    Ok(())
}

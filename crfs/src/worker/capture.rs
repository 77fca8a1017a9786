//! Captures: freezes a container, reads everything but page contents, and leaves it frozen with its tree in place.
//!
//! Only reads. Whenever the worker is killed its tracees go on being frozen as they were, and whoever started it thaws them. The steps:
//! look when waits end that forget it; freeze; stop the threads that cannot be read where they stand in the freezer; list the tasks and look for
//! obstacles that /proc shows; read the records; let go, and wait until all are back in the freezer, so that their processor time stands
//! still, and meanwhile write the tree; rename it into place.

mod queues;
mod records;
mod stop;
mod waiting;
mod write;

use super::laps::Laps;
use super::{Report, settle, survey, thaw};
use crate::external::External;
use crate::failure::{Failure, Kind};
use crate::freezer::Cgroup;
use crate::registry::{Container, Record, Registry};
use crate::resource::Findings;
use crate::resource::kernel::Kernel;
use crate::resource::proc::Proc;
use crate::resource::seccomp::Filters;
use crfs_sys::HostPid;
use image_format::parallel;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Fewer files are written in less than it takes to start a thread.
const FEWEST_FOR_TWO: usize = 128;

/// Runs the job.
pub(super) fn run(registry: &Registry, name: &str, deadline_ms: u64, inspect: bool, external: &[External]) -> Report {
    let mut report = Report::default();
    let mut findings = Findings::default();
    let mut laps = Laps::start();
    let outcome = prepare(registry, name, external).and_then(|mut job| {
        laps.lap("prepare");
        let end = Instant::now() + Duration::from_millis(deadline_ms);
        let seen = waiting::look(&job.cgroup, &mut job.proc, &job.kernel)?;
        laps.lap("waits");
        // A freeze that fails has thawed.
        job.cgroup.freeze(Duration::from_millis(deadline_ms))?;
        laps.lap("freeze");
        job.waits = waiting::ended_by_freeze(seen, &mut job.proc);
        let kept = frozen(&mut job, end, inspect, &mut findings, &mut laps);
        if !matches!(kept, Ok(true)) {
            write::discard(&job.container);
            let thawed = thaw::run(registry, name);
            laps.lap("thaw");
            report.notes.extend(thawed.notes);
            if let Some(failure) = thawed.failure {
                return Err(kept.err().unwrap_or(failure));
            }
        }
        kept
    });
    report.failure = outcome.err();
    findings.blockers.sort();
    findings.blockers.dedup();
    report.blockers = findings.blockers;
    report.notes.extend(findings.notes);
    report.timings = laps.timings;
    report
}

/// What a capture works with.
struct Job {
    container: Container,
    record: Record,
    cgroup: Cgroup,
    proc: Proc,
    kernel: Kernel,
    filters: Filters,
    /// When waits were to end that the freeze ended, by thread, as the host numbers it: nanoseconds of the host's CLOCK_MONOTONIC.
    waits: BTreeMap<i32, u64>,
    /// Threads that wait in vfork and the processes that they wait for, as the host numbers both.
    waiting: BTreeMap<i32, i32>,
    /// What connections may lead to outside of the container.
    external: Vec<External>,
}

/// Everything that can be done before the container stands still.
fn prepare(registry: &Registry, name: &str, external: &[External]) -> Result<Job, Failure> {
    let container = registry.container(name)?;
    let record = container.existing()?;
    if record.init.is_none() {
        let reason = format!("{name}: has no first process; `crctl ls` shows its state");
        return Err(Failure::new(Kind::WrongState, reason));
    }
    Ok(Job {
        cgroup: Cgroup::at(&record.cgroup),
        proc: Proc::open()?,
        kernel: Kernel::open(&registry.kstate_file())?,
        filters: Filters::default(),
        waits: BTreeMap::new(),
        waiting: BTreeMap::new(),
        external: external.to_vec(),
        container,
        record,
    })
}

/// What happens while the container stands still. True: it is to stay frozen, and its tree is in place.
fn frozen(
    job: &mut Job,
    end: Instant,
    inspect: bool,
    findings: &mut Findings,
    laps: &mut Laps,
) -> Result<bool, Failure> {
    // For the thaw, however this ends.
    job.container.write_waits(&job.waits)?;
    let mut held = stop::hold(job, end, laps)?;
    let moment = held.moment;
    // Even where reading fails: a thaw cannot seize what is still seized.
    let records = match (survey::look(&job.record, &held.subjects, &mut job.proc, findings), &held.threads) {
        (Err(failure), _) => Err(failure),
        (Ok(sharing), Some(threads)) => {
            laps.lap("obstacles");
            records::read(job, &held.subjects, &sharing, &moment, threads, findings, laps).map(Some)
        }
        (Ok(_), _) => Ok(None),
    };
    let image = records.as_ref().ok().and_then(Option::as_ref);
    let image = image.filter(|_| inspect || findings.blockers.is_empty());
    findings.blockers.sort();
    findings.blockers.dedup();
    let container = job.container.clone();
    let (written, released) = parallel::both(
        image.is_some_and(|records| records.image.manifest.paths.len() > FEWEST_FOR_TWO),
        || image.map(|records| write::tree(&container, records, &findings.blockers)).transpose(),
        || {
            let released = stop::release(job, &mut held, end);
            laps.lap("release");
            released
        },
    );
    released?;
    let (Some(records), Some(written)) = (records?, written?) else { return Ok(false) };
    let processes = held.subjects.processes.iter().map(|process| (process.pid, HostPid::new(process.host)));
    // Whoever was let run behind our back since then is noticed by whoever reads the tree.
    let mut live = settle::live(held.thawed, processes)?;
    live.note_contents(&records.image)?;
    job.container.write_live(&live)?;
    written.finish()?;
    laps.lap("write");
    Ok(true)
}

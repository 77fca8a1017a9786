//! Surveys: what would keep a running container from being checkpointed now, as far as /proc tells. Stops nothing.
//!
//! What only a stopped task or kernel memory tells is found by a freeze. Tasks come and go meanwhile: one that vanishes is
//! left out.

use super::Report;
use crate::failure::Failure;
use crate::registry::{Record, Registry};
use crate::resource::container::{self, Place};
use crate::resource::kernel::Kernel;
use crate::resource::met::Met;
use crate::resource::mount::Views;
use crate::resource::proc::{Proc, Status};
use crate::resource::process::Sharers;
use crate::resource::security::Label;
use crate::resource::subject::{self, Subjects};
use crate::resource::{Findings, descriptor, memory, process, security, thread, zombie};
use image_format::{Pid, layout};
use std::path::Path;

/// How often what changes under our eyes is looked at again.
const TRIES: u32 = 3;

/// Runs the job.
pub(super) fn run(registry: &Registry, name: &str) -> Report {
    let mut findings = Findings::default();
    let failure = survey(registry, name, &mut findings).err();
    findings.blockers.sort();
    findings.blockers.dedup();
    Report { failure, blockers: findings.blockers, notes: findings.notes, ..Report::default() }
}

fn survey(registry: &Registry, name: &str, findings: &mut Findings) -> Result<(), Failure> {
    let container = registry.container(name)?;
    let record = container.existing()?;
    if record.init.is_none() {
        return Ok(());
    }
    let mut proc = Proc::open()?;
    let subjects = subject::collect(&mut proc, &record)?;
    let init = subjects.init;
    if !alive(init) {
        return Ok(());
    }
    let found = attempt(init, findings, |found| container::survey(&record, &subjects, &mut proc, found));
    let ours = Status::read(&mut proc, "self/status")?;
    found?;
    process::survey_outsiders(&record, &subjects, &mut proc, findings)?;
    let label = Label::own(&mut proc);
    for subject in &subjects.processes {
        attempt(subject.alive().host, findings, |found| process::survey(subject, &subjects, &mut proc, found))?;
        for thread in &subject.threads {
            // A thread that ends takes only its own obstacles with it.
            let mut found = Findings::default();
            thread::survey(subject, thread, &ours, &mut found);
            let looked = security::survey(subject, thread, label.as_ref(), &mut proc, &mut found)
                .and_then(|()| zombie::capture(subject, thread, &subjects, &mut proc, &mut found).map(drop));
            if !subject::is_gone(&format!("/proc/{}/task/{}", subject.host, thread.host)) {
                // What has let go of its files and memory on its way out looks as if it had its own.
                looked?;
                merge(findings, found);
            }
        }
        attempt(subject.alive().host, findings, |found| {
            let place = Place::of(&record, init, &mut proc)?;
            memory::survey(subject, &place, &mut proc, found)
        })?;
    }
    Kernel::open(&registry.kstate_file())?.survey(&layout::process_dir(Pid(1)), findings);
    let Ok(place) = Place::of(&record, init, &mut proc) else { return Ok(()) };
    let mut views = Views::default();
    attempt(init, findings, |found| Views::look(&record, &subjects, &mut proc, found).map(|looked| views = looked))?;
    descriptors(&subjects, &views, place.root(), &container.log_file(), findings)
}

fn descriptors(
    subjects: &Subjects,
    views: &Views,
    root: &Path,
    log: &Path,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let mut tables = process::tables(subjects);
    let mut found = Findings::default();
    attempt(subjects.init, findings, |found| process::own_tables(subjects, found).map(|own| tables.extend(own)))?;
    let processes = &subjects.numbers();
    let whose = descriptor::Whose { tables: &tables, processes, init: subjects.init, ipc: &[], external: &[], views };
    descriptor::capture(whose, None, root, log, None, &mut Met::new(), &mut found)?;
    merge(findings, found);
    Ok(())
}

/// What processes share, and the obstacles that /proc shows of a frozen container, but for those of memory and descriptors, which are found with their records.
///
/// # Errors
/// When a task is gone.
pub(super) fn look(
    record: &Record,
    subjects: &Subjects,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<Vec<Sharers>, Failure> {
    container::survey(record, subjects, proc, findings)?;
    let sharing = process::sharing(subjects)?;
    process::survey_outsiders(record, subjects, proc, findings)?;
    let ours = Status::read(proc, "self/status")?;
    let label = Label::own(proc);
    for subject in &subjects.processes {
        process::survey(subject, subjects, proc, findings)?;
        for thread in &subject.threads {
            thread::survey(subject, thread, &ours, findings);
            if !thread.has_ended() {
                security::survey(subject, thread, label.as_ref(), proc, findings)?;
            }
        }
    }
    Ok(sharing)
}

/// Looks, again if it fails while the process lives: its mappings and files change. What still fails then is left to a freeze.
fn attempt(
    host: i32,
    findings: &mut Findings,
    mut look: impl FnMut(&mut Findings) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for _ in 0..TRIES {
        let mut found = Findings::default();
        if look(&mut found).is_ok() {
            merge(findings, found);
            return Ok(());
        }
        if !alive(host) {
            return Ok(());
        }
    }
    Ok(())
}

fn merge(findings: &mut Findings, found: Findings) {
    findings.blockers.extend(found.blockers);
    findings.notes.extend(found.notes);
}

fn alive(host: i32) -> bool {
    !subject::is_gone(&format!("/proc/{host}"))
}

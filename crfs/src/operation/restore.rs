//! Making a container from a checkpoint: copied in through the mount, or where it stands.

use super::{
    PATIENCE, conclude, forget_image, forget_staged, hold, lock_existing, note_failure, now, record_or_note,
    remove_tasks, require, state_if_any, state_locked,
};
use crate::failure::{Doing, Failure, Kind};
use crate::freezer::Cgroup;
use crate::registry::{Container, Record, Registry, State, Status};
use crate::worker::{self, Job, Report};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Makes a container that takes files: a new one, or an exited one whose log is kept.
///
/// # Errors
/// [`Kind::Exists`] for a container in any other state, [`Kind::BadName`], [`Kind::Busy`] when another operation does not end
/// within `patience`.
pub fn incoming(registry: &Registry, name: &str, patience: Duration) -> Result<Record, Failure> {
    let container = registry.container(name)?;
    // Before the lock, whose file makes a directory of the name.
    Cgroup::of(registry, name)?;
    let _lock = hold(&container, patience)?;
    let record = fresh(registry, &container)?;
    container.write_record(&record)?;
    let status = Status { operation: "copy in".to_owned(), time: record.created, ..Status::default() };
    container.write_status(&status)?;
    Ok(record)
}

/// The record of a container that is to be built, under a name that is free or whose container has exited.
fn fresh(registry: &Registry, container: &Container) -> Result<Record, Failure> {
    let name = container.name();
    match state_if_any(registry, container)? {
        None | Some(State::Exited) => {}
        Some(state) => {
            let reason = format!("{name}: there is a container of this name, and it is {state}");
            return Err(Failure::new(Kind::Exists, reason));
        }
    }
    forget_image(registry, container)?;
    Ok(Record {
        name: name.to_owned(),
        state: State::Incoming,
        generation: registry.next_generation()?,
        cgroup: Cgroup::of(registry, name)?.path().to_owned(),
        created: now(),
        command: Vec::new(),
        root: None,
        host_namespaces: std::collections::BTreeSet::new(),
        added: false,
        stub_init: None,
        init: None,
        exit_status: None,
        inspect: false,
        restored: false,
    })
}

/// Builds a container from what was copied in. It is frozen afterwards.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::WrongState`] unless it is incoming or failed, [`Kind::Busy`], [`Kind::BadImage`],
/// [`Kind::Incompatible`] and what the worker met. What was staged is kept, and nothing else of it is left.
pub fn build(registry: &Registry, name: &str) -> Result<Status, Failure> {
    let begun = Instant::now();
    let (container, _lock) = lock_existing(registry, name)?;
    let (state, record) = state_locked(&container)?;
    require(name, "restore", state, &[State::Incoming, State::Failed])?;
    let mut report = build_from(registry, &container, record, (&container.staging_dir(), false))?;
    if report.failure.is_none() {
        note_failure(&mut report, forget_staged(registry, &container));
    }
    conclude(&container, "restore", begun, report)
}

/// Builds a container from a directory that holds a checkpoint, where that stands: nothing of it is copied. It is frozen afterwards, or
/// with `run` runs: sooner than by a [`super::thaw`], which needs a tree to stand before.
///
/// # Errors
/// [`Kind::Exists`] for a container in any state but exited, [`Kind::BadName`], and as [`build`]. Nothing of it is left then; an exited
/// container of that name is still there.
pub fn restore(registry: &Registry, name: &str, directory: &Path, run: bool) -> Result<Status, Failure> {
    let begun = Instant::now();
    let container = registry.container(name)?;
    let from = fs::canonicalize(directory).doing(|| directory.display().to_string())?;
    let _lock = hold(&container, PATIENCE)?;
    let before = container.record()?;
    let built = fresh(registry, &container).and_then(|record| build_from(registry, &container, record, (&from, run)));
    let failure = match built {
        Err(failure) => failure,
        Ok(report) => match report.failure {
            None => return conclude(&container, "restore", begun, report),
            Some(failure) => failure.within(format!("{name}: restore")),
        },
    };
    // The failure that counts is the first.
    let _ = match &before {
        Some(before) => container.write_record(before),
        None => fs::remove_dir_all(container.dir()).doing(|| "removing what is left"),
    };
    Err(failure)
}

/// Builds it, and writes down what came of it: frozen or running, or failed with nothing of it left.
fn build_from(
    registry: &Registry,
    container: &Container,
    mut record: Record,
    (from, run): (&Path, bool),
) -> Result<Report, Failure> {
    // What a build left that was killed with its operation.
    remove_tasks(&record)?;
    record.state = State::Building;
    container.write_record(&record)?;
    let mut report = worker::run(&Job::Build { name: container.name().to_owned(), from: from.to_owned(), run });
    // The worker knows what the image says of command, root and network, and the first process, and may have written it down.
    record = container.existing().unwrap_or(record);
    if report.failure.is_none() {
        record.state = if run { State::Running } else { State::Frozen };
        record.restored = !run;
        record.inspect = false;
        record.exit_status = None;
        record_or_note(container, &record, &mut report);
    }
    if report.failure.is_none() && run {
        note_failure(&mut report, forget_image(registry, container));
    }
    if report.failure.is_some() {
        record.state = State::Failed;
        record.init = None;
        record.stub_init = None;
        note_failure(&mut report, remove_tasks(&record));
        note_failure(&mut report, forget_image(registry, container));
        note_failure(&mut report, container.write_record(&record));
    }
    Ok(report)
}

//! What a user asks for: the functions behind `crctl` and behind the files of the mounted tree.
//!
//! Each takes the container's lock, looks what is true, leaves whatever touches tasks to a worker, and writes what came of it
//! to `container.json` and `status.json`. Nothing here needs the server: the registry is the truth, and the lock orders all
//! who change it.

mod list;
mod restore;
mod run_state;

pub use list::{Listed, list};
pub use restore::{build, incoming, restore};
pub use run_state::state;
use run_state::state_locked;
pub(crate) use run_state::{exit_code, hold, now, start_time, state_if_any};

use crate::external::External;
use crate::failure::{Doing, Failure, Kind};
use crate::freezer::Cgroup;
use crate::registry::{Container, Record, Registry, State, Status, Timing};
use crate::worker::{self, Job, Report};
use image_format::Blocker;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another operation on the container is waited for: longer than a freeze's usual deadline.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long killed tasks may take to go, and their cgroup after them.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// How a container is to be frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreezeOptions {
    /// For the freezer to stop every task; then the container is thawed again and the tasks are named.
    pub deadline: Duration,
    /// Keep it frozen although it holds what cannot be carried, for looking: its tree has `blockers` and no `manifest`.
    pub inspect: bool,
    /// What connections may lead to outside of the container.
    pub external: Vec<External>,
}

impl Default for FreezeOptions {
    fn default() -> Self {
        FreezeOptions { deadline: Duration::from_secs(10), inspect: false, external: Vec::new() }
    }
}

/// For a freeze that was interrupted to be completed.
const REFREEZE_PATIENCE: Duration = Duration::from_secs(2);

/// Freezes a running container and captures it, so that its tree stands.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::WrongState`] unless it runs, [`Kind::Busy`], [`Kind::Deadline`], and [`Kind::Blocked`] with every
/// obstacle in its status. After any of them the container is as it was before.
pub fn freeze(registry: &Registry, name: &str, options: FreezeOptions) -> Result<Status, Failure> {
    let begun = Instant::now();
    let (container, _lock) = lock_existing(registry, name)?;
    let (state, mut record) = state_locked(&container)?;
    require(name, "freeze", state, &[State::Running])?;
    // Before the capture, so that no node of the new tree can be taken for one of an earlier freeze.
    record.generation = registry.next_generation()?;
    record.state = State::Running;
    container.write_record(&record)?;
    forget_image(registry, &container)?;
    let deadline_ms = u64::try_from(options.deadline.as_millis()).unwrap_or(u64::MAX);
    let job = Job::Capture { name: name.to_owned(), deadline_ms, inspect: options.inspect, external: options.external };
    let mut report = worker::run(&job);
    if report.failure.is_none() && !report.blockers.is_empty() && !options.inspect {
        report.failure = Some(blocked(name, report.blockers.len()));
    }
    if report.failure.is_none() {
        record.state = State::Frozen;
        record.inspect = !report.blockers.is_empty();
        record_or_note(&container, &record, &mut report);
    }
    if report.failure.is_some() {
        note_failure(&mut report, thaw_after_failure(name, &Cgroup::at(&record.cgroup)));
        note_failure(&mut report, forget_image(registry, &container));
    }
    conclude(&container, "freeze", begun, report)
}

/// What a capture does when it fails, unless it was killed: a worker repairs interrupted calls and thaws. Should that one be killed
/// too, running on counts for more than an EINTR.
fn thaw_after_failure(name: &str, cgroup: &Cgroup) -> Result<(), Failure> {
    // Killed while tasks were still stopping: those that had stopped need the repair, and it needs all to have stopped.
    let stopped = cgroup.is_to_freeze()? && cgroup.freeze(REFREEZE_PATIENCE).is_ok();
    if stopped && worker::run(&Job::Thaw { name: name.to_owned() }).failure.is_none() {
        return Ok(());
    }
    cgroup.thaw()
}

/// Lets a frozen container run.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::WrongState`] unless it is frozen, [`Kind::Busy`]. It stays frozen then.
pub fn thaw(registry: &Registry, name: &str) -> Result<Status, Failure> {
    let begun = Instant::now();
    let (container, _lock) = lock_existing(registry, name)?;
    let (state, mut record) = state_locked(&container)?;
    // A running container whose cgroup is frozen: an interrupted freeze, or somebody else's. To thaw it is what is asked.
    let interrupted = state == State::Running && Cgroup::at(&record.cgroup).is_frozen()?;
    if !interrupted {
        require(name, "thaw", state, &[State::Frozen])?;
    }
    let mut report = worker::run(&Job::Thaw { name: name.to_owned() });
    if report.failure.is_none() {
        record.state = State::Running;
        record.inspect = false;
        record.restored = false;
        record_or_note(&container, &record, &mut report);
        note_failure(&mut report, forget_image(registry, &container));
    }
    conclude(&container, "thaw", begun, report)
}

/// What would keep a running container from being checkpointed now. Stops nothing, and is no operation for `status.json`.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::WrongState`] unless it runs, [`Kind::Busy`], or that looking failed.
pub fn survey(registry: &Registry, name: &str) -> Result<Vec<Blocker>, Failure> {
    let (container, _lock) = lock_existing(registry, name)?;
    let (state, _) = state_locked(&container)?;
    require(name, "survey", state, &[State::Running])?;
    let report = worker::run(&Job::Survey { name: name.to_owned() });
    match report.failure {
        Some(failure) => Err(failure.within(format!("{name}: survey"))),
        None => Ok(report.blockers),
    }
}

/// Kills every process of a running or frozen container. It is exited afterwards: its name can be used again, and its log is kept.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::WrongState`] where nothing runs, [`Kind::Busy`], [`Kind::Deadline`].
pub fn kill(registry: &Registry, name: &str) -> Result<Status, Failure> {
    let begun = Instant::now();
    let (container, _lock) = lock_existing(registry, name)?;
    let (state, mut record) = state_locked(&container)?;
    require(name, "kill", state, &[State::Running, State::Frozen])?;
    let mut report = Report { failure: remove_tasks(&record).err(), ..Report::default() };
    if report.failure.is_none() {
        record.exit_status = record.exit_status.or(Some(libc::SIGKILL));
        record.state = State::Exited;
        record.inspect = false;
        record.restored = false;
        record_or_note(&container, &record, &mut report);
        note_failure(&mut report, forget_image(registry, &container));
    }
    conclude(&container, "kill", begun, report)
}

/// Forgets a container that has no processes: its log, its status and whatever was copied in.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::WrongState`] while it has processes or is being built, [`Kind::Busy`].
pub fn remove(registry: &Registry, name: &str) -> Result<(), Failure> {
    let (container, _lock) = lock_existing(registry, name)?;
    let (state, record) = state_locked(&container)?;
    require(name, "remove", state, &[State::Exited, State::Incoming, State::Failed])?;
    let cgroup = Cgroup::at(&record.cgroup);
    cgroup.remove(KILL_PATIENCE)?;
    cgroup.remove_parent_if_empty();
    forget_staged(registry, &container)?;
    fs::remove_dir_all(container.dir()).doing(|| format!("{name}: removing {}", container.dir().display()))
}

/// Starts a container: [`crate::launch::run`].
///
/// # Errors
/// As there.
pub fn run(
    registry: &Registry,
    name: &str,
    command: &[std::ffi::OsString],
    options: &crate::launch::RunOptions,
) -> Result<Record, crate::launch::RunError> {
    crate::launch::run(registry, name, command, options)
}

/// Takes in what runs: [`crate::adopt::add`].
///
/// # Errors
/// As there.
pub fn add(registry: &Registry, name: &str, source: &crate::adopt::Source) -> Result<(Record, Status), Failure> {
    crate::adopt::add(registry, name, source)
}

/// Removes the text files of a freeze and what is known of the tasks behind them.
pub(crate) fn forget_image(_registry: &Registry, container: &Container) -> Result<(), Failure> {
    let remove = |path: &Path| ignore_missing(fs::remove_file(path)).doing(|| format!("{}: removing", path.display()));
    remove(&container.image_file())?;
    remove(&container.waits_file())?;
    remove(&container.countdowns_file())?;
    remove(&container.dir().join("live.json"))
}

fn lock_existing(registry: &Registry, name: &str) -> Result<(Container, nix::fcntl::Flock<fs::File>), Failure> {
    let container = registry.container(name)?;
    // Before the lock, whose file would make a directory of the name.
    container.existing()?;
    let lock = hold(&container, PATIENCE)?;
    container.existing()?;
    Ok((container, lock))
}

fn require(name: &str, verb: &str, state: State, allowed: &[State]) -> Result<(), Failure> {
    if allowed.contains(&state) {
        return Ok(());
    }
    let remedy = match (verb, state) {
        ("freeze", State::Frozen) => format!("it is frozen already; `crctl thaw {name}` lets it run"),
        ("thaw", State::Running) => String::from("it runs already"),
        ("kill" | "freeze" | "thaw" | "survey", State::Exited) => {
            format!(
                "all its processes have ended; `crctl rm {name}` forgets it, `crctl run` or a copy uses the name again"
            )
        }
        ("kill", State::Incoming | State::Failed) => format!("it has no processes; `crctl rm {name}` throws it away"),
        (_, State::Incoming) => format!(
            "it is built when the last of its files is there whole, and `crctl status {name}` says which are missing or cut"
        ),
        (_, State::Failed) => {
            format!(
                "it could not be built (`crctl status {name}` says why); replace a file of it, or `crctl rm {name}`"
            )
        }
        (_, State::Building) => String::from("it is being built; try again when that has ended"),
        ("remove", State::Running | State::Frozen) => format!("it has processes; `crctl kill {name}` first"),
        (_, State::Frozen) => format!("`crctl thaw {name}` lets it run"),
        (_, State::Running) => format!("`crctl freeze {name}` stops it, `crctl kill {name}` ends it"),
        (_, State::Exited) => format!("`crctl rm {name}` forgets it"),
    };
    Err(Failure::new(Kind::WrongState, format!("{name}: cannot {verb} a container that is {state}; {remedy}")))
}

fn blocked(name: &str, count: usize) -> Failure {
    let (is, thing) = if count == 1 { ("is", "obstacle") } else { ("are", "obstacles") };
    Failure::new(
        Kind::Blocked,
        format!(
            "{name}: there {is} {count} {thing} to a checkpoint, and it runs on; `crctl freeze --inspect {name}` keeps it frozen for looking"
        ),
    )
}

/// The result of an operation that cannot be recorded is a failure of it.
fn record_or_note(container: &Container, record: &Record, report: &mut Report) {
    if let Err(failure) = container.write_record(record) {
        report.failure = Some(failure);
    }
}

/// What goes wrong after the result stands is told beside it.
fn note_failure(report: &mut Report, result: Result<(), Failure>) {
    if let Err(failure) = result {
        report.notes.push(failure.to_string());
    }
}

/// Writes `status.json`, and turns the report into the operation's answer.
fn conclude(container: &Container, operation: &str, begun: Instant, report: Report) -> Result<Status, Failure> {
    let mut timings = report.timings;
    timings.push(Timing { what: "total".into(), us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX) });
    let failure = report.failure.map(|failure| {
        // A refusal names the container itself already.
        let named = failure.chain.first().is_some_and(|first| first.starts_with(container.name()));
        if named { failure } else { failure.within(format!("{}: {operation}", container.name())) }
    });
    let mut status = Status {
        operation: operation.to_owned(),
        time: now(),
        failure,
        blockers: report.blockers,
        notes: report.notes,
        timings,
    };
    if let Err(unwritten) = container.write_status(&status) {
        status.notes.push(unwritten.to_string());
    }
    match status.failure.clone() {
        Some(failure) => Err(failure),
        None => Ok(status),
    }
}

/// Kills what is in the container's cgroup and removes the cgroup.
fn remove_tasks(record: &Record) -> Result<(), Failure> {
    let cgroup = Cgroup::at(&record.cgroup);
    if cgroup.exists() {
        cgroup.kill(KILL_PATIENCE)?;
        cgroup.remove(KILL_PATIENCE)?;
    }
    Ok(())
}

/// Removes what was copied in: the files, and the page contents that their links lead to.
fn forget_staged(registry: &Registry, container: &Container) -> Result<(), Failure> {
    let staging = container.staging_dir();
    remove_linked(&staging, registry.staging_dir());
    remove_tree(&staging)?;
    remove_tree(&registry.staging_dir().join(container.name()))
}

/// Removes the files below `within` that symbolic links below `directory` lead to.
fn remove_linked(directory: &Path, within: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => remove_linked(&path, within),
            Ok(kind) if kind.is_symlink() => {
                if let Some(target) = fs::read_link(&path).ok().filter(|target| target.starts_with(within)) {
                    // One that is gone already is as good.
                    let _ = fs::remove_file(target);
                }
            }
            _ => {}
        }
    }
}

fn remove_tree(path: &Path) -> Result<(), Failure> {
    ignore_missing(fs::remove_dir_all(path)).doing(|| format!("{}: removing", path.display()))
}

pub(crate) fn ignore_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

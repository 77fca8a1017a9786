//! Workers: short-lived, single-threaded processes that do whatever touches tasks.
//!
//! A worker is this same program started again under the name [`ARGV0`], with its [`Job`] as JSON on standard input and its
//! [`Report`] as JSON on standard output. The server's death cannot touch a tracee, and a worker's death harms nothing: a
//! capture only reads, and what a build made dies with it.

pub mod build;
pub mod capture;
mod interrupt;
mod laps;
mod orphan;
mod settle;
pub mod survey;
pub mod thaw;

pub use interrupt::{catch as catch_signals, interrupted};

use crate::external::External;
use crate::failure::{Doing, Failure, Kind};
use crate::registry::{Registry, Timing};
use image_format::Blocker;
use nix::sys::signal::SigSet;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The name a worker is started under: what `ps` shows, and how main knows.
pub const ARGV0: &str = "crfs-worker";

/// What a worker is asked to do. The caller holds the container's lock and has written its record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Freeze the cgroup, capture everything but page contents into `image/` and `live.json`. On failure thaws again.
    Capture {
        /// The container.
        name: String,
        /// For the freezer to stop every task.
        deadline_ms: u64,
        /// Keep it frozen although there are blockers; writes `blockers` in the place of `manifest`.
        inspect: bool,
        /// What connections may lead to outside of the container.
        external: Vec<External>,
    },
    /// Report what could not be checkpointed, without stopping anything.
    Survey {
        /// The container.
        name: String,
    },
    /// Build the container, and leave it frozen, with `image`, `live.json` and `countdowns.json` in place.
    Build {
        /// The container.
        name: String,
        /// The directory that holds its image.
        from: PathBuf,
        /// Let it run instead, and leave none of these.
        run: bool,
    },
    /// Let a frozen container run: repairs the calls that would leak EINTR, re-arms what is relative after a restore.
    Thaw {
        /// The container.
        name: String,
    },
}

/// What a worker answers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// None: it worked.
    pub failure: Option<Failure>,
    /// Every obstacle found.
    pub blockers: Vec<Blocker>,
    /// What the user should know.
    pub notes: Vec<String>,
    /// How long the parts took.
    pub timings: Vec<Timing>,
}

/// Runs a job in a worker of its own and waits for it. A worker that dies is a failure in the report.
#[must_use]
pub fn run(job: &Job) -> Report {
    spawn(job).unwrap_or_else(|failure| Report { failure: Some(failure), ..Report::default() })
}

fn spawn(job: &Job) -> Result<Report, Failure> {
    let input = serde_json::to_vec(job).doing(|| "worker: rendering its job")?;
    let mut child = Command::new("/proc/self/exe")
        .arg0(ARGV0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // ^C in a terminal reaches who started it alone, who knows what to do about it.
        .process_group(0)
        .spawn()
        .doing(|| "worker: starting it")?;
    let is_capture = matches!(job, Job::Capture { .. });
    if is_capture {
        interrupt::capture(Some(child.id()));
    }
    if let Some(mut stdin) = child.stdin.take() {
        // A worker that is already dead is told by its missing report below.
        let _ = stdin.write_all(&input);
    }
    let mut output = Vec::new();
    let read = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut output));
    if is_capture {
        interrupt::capture(None);
    }
    let status = child.wait().doing(|| "worker: waiting for it")?;
    read.doing(|| "worker: reading its report")?;
    serde_json::from_slice(&output).map_err(|_| {
        let died = || Failure::new(Kind::System, format!("the worker ended without a report ({status})"));
        interrupt::failure().filter(|_| is_capture).unwrap_or_else(died)
    })
}

/// What main calls first: does the job and exits if this process was started as a worker, returns otherwise.
pub fn exit_if_worker() {
    if std::env::args_os().next().is_none_or(|name| name != ARGV0) {
        return;
    }
    // Whoever started it may hold signals back.
    let _ = SigSet::all().thread_unblock();
    let registry = Registry::from_environment();
    let job = read_job();
    let report = match &job {
        Err(failure) => Report { failure: Some(failure.clone()), ..Report::default() },
        Ok(Job::Capture { name, deadline_ms, inspect, external }) => {
            capture::run(&registry, name, *deadline_ms, *inspect, external)
        }
        Ok(Job::Survey { name }) => survey::run(&registry, name),
        Ok(Job::Build { name, from, run }) => build::run(&registry, name, from, *run),
        Ok(Job::Thaw { name }) => thaw::run(&registry, name),
    };
    let mut stdout = std::io::stdout();
    let written = serde_json::to_vec(&report).map(|bytes| stdout.write_all(&bytes).and_then(|()| stdout.flush()));
    if matches!(written, Ok(Ok(()))) {
        std::process::exit(0);
    }
    if let Ok(job) = &job {
        orphan::undo(&registry, job);
    }
    std::process::exit(1);
}

fn read_job() -> Result<Job, Failure> {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input).doing(|| "worker: reading its job")?;
    serde_json::from_slice(&input).doing(|| "worker: parsing its job")
}

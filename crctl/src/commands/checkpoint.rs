//! `crctl checkpoint` and `crctl restore`: the way past the mount.

use super::change::{done, refused};
use crate::cli::{Checkpoint, Progress as Form, Restore};
use crate::output::{bytes, print, print_json, tell, time};
use anyhow::{Context, Result};
use crfs::failure::{Failure, Kind};
use crfs::operation::{self, FreezeOptions};
use crfs::registry::{Registry, State};
use crfs::transport::{Frozen, Progress, WriteOptions, write_tree};
use crfs::worker;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Between two looks at how far it has come.
const TICK: Duration = Duration::from_millis(100);

/// What `--json` prints.
#[derive(Serialize)]
struct Taken {
    name: String,
    directory: PathBuf,
    /// Of the container's tree.
    bytes: u64,
    /// Of the files that were made of it: less, with `--compress`.
    stored: u64,
    /// Microseconds that the container stood still for it, at most; null when it was frozen before or stays so.
    frozen_us: Option<u64>,
    us: u64,
}

pub(super) fn checkpoint(registry: &Registry, arguments: &Checkpoint, json: bool) -> Result<()> {
    let name = &arguments.name;
    worker::catch_signals()?;
    let (state, _) = operation::state(registry, name)?;
    let target = target(&arguments.directory, name);
    if target.symlink_metadata().is_ok() {
        let reason = format!("{}: exists already; name another place, or remove it", target.display());
        return Err(Failure::new(Kind::Exists, reason).into());
    }
    let begun = Instant::now();
    let runs = state == State::Running;
    // From before it stands still until after it runs again: never less than it stood.
    let frozen = Instant::now();
    if runs {
        let options = FreezeOptions {
            deadline: arguments.deadline,
            inspect: false,
            external: arguments.outside.external.clone(),
        };
        operation::freeze(registry, name, options).map_err(|failure| refused(registry, name, failure))?;
    }
    let copied = copy(registry, name, &target, arguments);
    let thaw = runs && (copied.is_err() || !arguments.leave_frozen);
    let thawed = if thaw { operation::thaw(registry, name).map(drop) } else { Ok(()) };
    let frozen = frozen.elapsed();
    let (bytes_read, stored) = copied?;
    thawed?;
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let taken = Taken {
        name: name.clone(),
        directory: target,
        bytes: bytes_read,
        stored,
        frozen_us: thaw.then(|| us(frozen)),
        us: us(begun.elapsed()),
    };
    if json {
        return print_json(&taken);
    }
    let stood = taken.frozen_us.map(|us| format!(", frozen for {}", time(us))).unwrap_or_default();
    let place = taken.directory.display();
    let stored = if arguments.compress { format!(", stored as {},", bytes(taken.stored)) } else { String::new() };
    print(&format!("{name}: {}{stored} in {place}, in {}{stood}\n", bytes(taken.bytes), time(taken.us)))
}

/// As cp: in a directory that exists under the container's name, otherwise the directory itself.
fn target(directory: &Path, name: &str) -> PathBuf {
    if directory.is_dir() { directory.join(name) } else { directory.to_owned() }
}

/// Returns how many bytes were read and how many stored.
fn copy(registry: &Registry, name: &str, target: &Path, arguments: &Checkpoint) -> Result<(u64, u64)> {
    let source = Frozen::open(registry, name)?;
    let progress = Progress::default();
    let stored = shown(&progress, form(arguments.progress), || {
        write_tree(&source, target, WriteOptions { sync: arguments.sync, compress: arguments.compress }, &progress)
    })?;
    Ok((progress.now().0, stored))
}

fn form(asked: Option<Form>) -> Form {
    asked.unwrap_or(if std::io::stderr().is_terminal() { Form::Bar } else { Form::None })
}

/// Does something long and shows meanwhile how far it has come.
fn shown<T: Send>(progress: &Progress, form: Form, work: impl FnOnce() -> T + Send) -> T {
    if form == Form::None {
        return work();
    }
    let (ended, end) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || show(progress, form, &end));
        let result = work();
        // The other side has gone only if it panicked, and then says so itself.
        let _ = ended.send(());
        result
    })
}

fn show(progress: &Progress, form: Form, end: &mpsc::Receiver<()>) {
    let bar = if form == Form::Bar { ProgressBar::new(0) } else { ProgressBar::hidden() };
    let template = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    loop {
        let ended = end.recv_timeout(TICK) != Err(mpsc::RecvTimeoutError::Timeout);
        let (done, total) = progress.now();
        bar.set_length(total);
        bar.set_position(done);
        if form == Form::Json {
            tell(&serde_json::json!({ "done": done, "total": total }).to_string());
        }
        if ended {
            bar.finish_and_clear();
            return;
        }
    }
}

pub(super) fn restore(registry: &Registry, arguments: &Restore, json: bool) -> Result<()> {
    let directory = std::fs::canonicalize(&arguments.directory)
        .with_context(|| format!("{}: looking for the checkpoint", arguments.directory.display()))?;
    let own = || directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = arguments.name.clone().unwrap_or_else(own);
    worker::catch_signals()?;
    let status = operation::restore(registry, &name, &directory, arguments.run)?;
    done(&name, if arguments.run { "restored, running" } else { "restored, frozen" }, &status, json)
}

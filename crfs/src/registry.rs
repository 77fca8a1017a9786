//! Where containers stand between operations: a directory each under the run directory, all of it plain files.
//!
//! ```text
//! /run/crfs/                    CRFS_RUN_DIR
//!   server.json                 the running server: pid, mount point
//!   kstate.json                 what calibration found out about this kernel
//!   vs1/
//!     container.json            [`Record`], replaced by rename
//!     status.json               [`Status`] of the last operation, replaced by rename
//!     lock                      flock(2)ed by whoever changes the container
//!     log                       standard output and error of its programs
//!     image                     the text files of the current freeze, and pipe data: [`crate::captured`] (state frozen)
//!     live.json                 [`Live`]: the tasks behind the image (state frozen)
//!     waits.json                when waits were to end that the freeze ended (state frozen)
//!     countdowns.json           [`Countdowns`] of a restored container that has not run yet (state frozen)
//!     staging/                  what was copied in so far (states incoming, building, failed)
//! ```
//! Page contents copied in may be as large as memory, and /run is often a small tmpfs: `staging/*/mem.pages` are symbolic
//! links into the staging directory (CRFS_STAGING_DIR, by default /dev/shm/crfs).

mod countdowns;
mod records;

pub use countdowns::{Countdowns, CountedTimerfd, CountedTimers, CountedWait, HostThread};
pub use records::{Init, Live, LiveProcess, Record, Server, State, Status, Thawed, Timing};

use crate::failure::{Doing, Failure, Kind};
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest name of a container, in bytes: it is a directory name, a cgroup name and a default host name.
pub const NAME_MAX: usize = 63;

/// The run directory and what belongs to it.
#[derive(Clone, Debug)]
pub struct Registry {
    run: PathBuf,
    staging: PathBuf,
    cgroup_parent: String,
}

impl Registry {
    /// The registry of this host: `/run/crfs` unless CRFS_RUN_DIR says otherwise. A different run directory is a different
    /// world: its cgroups stand under a parent of another name.
    #[must_use]
    pub fn from_environment() -> Self {
        let run = std::env::var_os("CRFS_RUN_DIR").map_or_else(|| PathBuf::from("/run/crfs"), PathBuf::from);
        let registry = Registry::at(run, "");
        let staging = std::env::var_os("CRFS_STAGING_DIR")
            .map_or_else(|| Path::new("/dev/shm").join(&registry.cgroup_parent), PathBuf::from);
        Registry { staging, ..registry }
    }

    /// A registry in these directories.
    #[must_use]
    pub fn at(run: impl Into<PathBuf>, staging: impl Into<PathBuf>) -> Self {
        let (run, staging) = (run.into(), staging.into());
        let own = run == Path::new("/run/crfs");
        let tag: String =
            run.to_string_lossy().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let cgroup_parent = if own { "crfs".to_owned() } else { format!("crfs{tag}") };
        Registry { run, staging, cgroup_parent }
    }

    /// The run directory.
    #[must_use]
    pub fn run_dir(&self) -> &Path {
        &self.run
    }

    /// Where page contents of incoming images lie.
    #[must_use]
    pub fn staging_dir(&self) -> &Path {
        &self.staging
    }

    /// The name of the cgroup that all containers of this registry stand under.
    #[must_use]
    pub fn cgroup_parent(&self) -> &str {
        &self.cgroup_parent
    }

    /// `server.json`.
    #[must_use]
    pub fn server_file(&self) -> PathBuf {
        self.run.join("server.json")
    }

    /// `kstate.json`.
    #[must_use]
    pub fn kstate_file(&self) -> PathBuf {
        self.run.join("kstate.json")
    }

    /// The running server, if its process is alive.
    #[must_use]
    pub fn server(&self) -> Option<Server> {
        let server: Server = read_json(&self.server_file()).ok()??;
        Path::new("/proc").join(server.pid.to_string()).exists().then_some(server)
    }

    /// A generation no container of this registry had before.
    ///
    /// # Errors
    /// When the counter's file cannot be written.
    pub fn next_generation(&self) -> Result<u64, Failure> {
        create_dir(&self.run)?;
        let path = self.run.join("generation");
        let _lock = lock_file(&self.run.join("generation.lock"), Duration::from_secs(5))?;
        let next = read_json::<u64>(&path)?.unwrap_or(0) + 1;
        write_json(&path, &next)?;
        Ok(next)
    }

    /// A container's directory, whether or not it exists.
    ///
    /// # Errors
    /// [`Kind::BadName`].
    pub fn container(&self, name: &str) -> Result<Container, Failure> {
        check_name(name)?;
        Ok(Container { name: name.to_owned(), dir: self.run.join(name) })
    }

    /// The names of all containers, sorted.
    ///
    /// # Errors
    /// When the run directory cannot be read.
    pub fn names(&self) -> Result<Vec<String>, Failure> {
        let entries = match fs::read_dir(&self.run) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.doing(|| format!("{}: reading the run directory", self.run.display()))?,
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| check_name(name).is_ok() && self.run.join(name).join("container.json").exists())
            .collect();
        names.sort();
        Ok(names)
    }
}

/// Refuses what cannot be a container's name: it must start with a letter or digit and hold only letters, digits, `-`,
/// `_` and `.`, at most [`NAME_MAX`] bytes.
///
/// # Errors
/// [`Kind::BadName`], saying what is wrong.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let refuse = |why: &str| Err(Failure::new(Kind::BadName, format!("name {name:?}: {why}")));
    if name.len() > NAME_MAX {
        return refuse("longer than 63 bytes");
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return refuse("must start with a letter or digit");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return refuse("only letters, digits, '-', '_' and '.' are allowed");
    }
    Ok(())
}

/// A container's directory in the registry.
#[derive(Clone, Debug)]
pub struct Container {
    name: String,
    dir: PathBuf,
}

#[allow(missing_docs)] // each is the file of that name in the module's picture
impl Container {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    #[must_use]
    pub fn image_file(&self) -> PathBuf {
        self.dir.join("image")
    }
    #[must_use]
    pub fn staging_dir(&self) -> PathBuf {
        self.dir.join("staging")
    }
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// `container.json`, or None where there is no such container.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn record(&self) -> Result<Option<Record>, Failure> {
        read_json(&self.dir.join("container.json"))
    }

    /// `container.json` of a container that must exist.
    ///
    /// # Errors
    /// [`Kind::NotFound`].
    pub fn existing(&self) -> Result<Record, Failure> {
        let missing =
            || Failure::new(Kind::NotFound, format!("{}: no such container; `crctl ls` lists them", self.name));
        self.record()?.ok_or_else(missing)
    }

    /// Replaces `container.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_record(&self, record: &Record) -> Result<(), Failure> {
        create_dir(&self.dir)?;
        write_json(&self.dir.join("container.json"), record)
    }

    /// `status.json`.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn status(&self) -> Result<Status, Failure> {
        Ok(read_json(&self.dir.join("status.json"))?.unwrap_or_default())
    }

    /// Replaces `status.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_status(&self, status: &Status) -> Result<(), Failure> {
        create_dir(&self.dir)?;
        write_json(&self.dir.join("status.json"), status)
    }

    /// `live.json`, there while the container is frozen.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn live(&self) -> Result<Option<Live>, Failure> {
        read_json(&self.dir.join("live.json"))
    }

    /// Replaces `live.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_live(&self, live: &Live) -> Result<(), Failure> {
        write_json(&self.dir.join("live.json"), live)
    }

    /// `waits.json`: when waits were to end that the freeze ended, by thread, as the host numbers it, in nanoseconds of the host's
    /// CLOCK_MONOTONIC. Empty when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn waits(&self) -> Result<BTreeMap<i32, u64>, Failure> {
        Ok(read_json(&self.waits_file())?.unwrap_or_default())
    }

    /// Replaces `waits.json`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_waits(&self, waits: &BTreeMap<i32, u64>) -> Result<(), Failure> {
        let path = self.waits_file();
        if !waits.is_empty() {
            return write_json(&path, waits);
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).doing(|| format!("{}: removing", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Where `waits.json` stands.
    #[must_use]
    pub fn waits_file(&self) -> PathBuf {
        self.dir.join("waits.json")
    }

    /// `countdowns.json`. Empty when there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn countdowns(&self) -> Result<Countdowns, Failure> {
        Ok(read_json(&self.countdowns_file())?.unwrap_or_default())
    }

    /// Writes `countdowns.json`, if there are any.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_countdowns(&self, countdowns: &Countdowns) -> Result<(), Failure> {
        if *countdowns == Countdowns::default() { Ok(()) } else { write_json(&self.countdowns_file(), countdowns) }
    }

    /// Where `countdowns.json` stands.
    #[must_use]
    pub fn countdowns_file(&self) -> PathBuf {
        self.dir.join("countdowns.json")
    }

    /// Holds the container against other operations until the guard is dropped.
    ///
    /// # Errors
    /// [`Kind::Busy`] when another operation does not end within `patience`.
    pub fn lock(&self, patience: Duration) -> Result<Flock<File>, Failure> {
        create_dir(&self.dir)?;
        lock_file(&self.dir.join("lock"), patience).map_err(|failure| match failure.kind {
            Kind::Busy => Failure::new(
                Kind::Busy,
                format!("{}: another operation is under way; try again when it has ended", self.name),
            ),
            _ => failure,
        })
    }
}

/// Creates a directory for root alone, with its parents.
///
/// # Errors
/// When that fails.
pub fn create_dir(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .doing(|| format!("{}: creating the directory", path.display()))
}

fn lock_file(path: &Path, patience: Duration) -> Result<Flock<File>, Failure> {
    let end = Instant::now() + patience;
    let open = || fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
    let mut file = open().doing(|| format!("{}: opening the lock", path.display()))?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < end => {
                file = back;
                std::thread::sleep(Duration::from_millis(2));
            }
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                return Err(Failure::new(Kind::Busy, format!("{}: held by another process", path.display())));
            }
            Err((_, errno)) => return Err(errno).doing(|| format!("{}: locking", path.display())),
        }
    }
}

/// Reads a JSON file; None where there is none.
///
/// # Errors
/// When it cannot be read or parsed.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Failure> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).doing(|| format!("{}: parsing", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).doing(|| format!("{}: reading", path.display())),
    }
}

/// Replaces a JSON file as a whole: a reader sees the old or the new, never a part.
///
/// # Errors
/// When it cannot be written.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Failure> {
    let bytes = serde_json::to_vec_pretty(value).doing(|| format!("{}: rendering", path.display()))?;
    let new = path.with_extension(format!("new.{}", std::process::id()));
    let write = || -> std::io::Result<()> {
        fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?.write_all(&bytes)?;
        fs::rename(&new, path)
    };
    write().doing(|| format!("{}: writing", path.display())).inspect_err(|_| {
        // What was written in part has no reader; that it cannot be removed changes nothing.
        let _ = fs::remove_file(&new);
    })
}

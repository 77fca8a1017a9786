//! Starting a container: `crctl run`.

pub mod exec;
pub(crate) mod overlay;
mod resolve;
mod surroundings;

pub(crate) use surroundings::set_names;
pub use surroundings::{ClockOffsets, Newborn, Surroundings, clone_init};

use crate::console;
use crate::failure::{Doing, Failure, Kind};
use crate::freezer::Cgroup;
use crate::operation;
use crate::registry::{Container, Init, Record, Registry, State};
use image_format::manifest::NamespaceKind;
use nix::fcntl::Flock;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a name may be held by another operation.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// For what is left of a container that could not be started.
const CLEANUP: Duration = Duration::from_secs(5);

/// What `crctl run` may ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The directory that becomes the container's `/`.
    pub root: Option<PathBuf>,
    /// Share the host's network.
    pub host_net: bool,
    /// The host name; the container's name when None.
    pub hostname: Option<OsString>,
    /// Give it a terminal of this size, in the place of /dev/null and the log.
    pub terminal: Option<TerminalSize>,
}

/// Rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

impl Default for TerminalSize {
    /// That of a terminal that says nothing about itself.
    fn default() -> Self {
        TerminalSize { rows: 24, columns: 80 }
    }
}

/// Why a container could not be started. A shell tells the first two from the rest, so they are told apart here.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no such command: 127 in a shell.
    #[error("{0}")]
    CommandNotFound(Failure),
    /// It is there and cannot be executed: 126 in a shell.
    #[error("{0}")]
    NotExecutable(Failure),
    /// Anything else.
    #[error("{0}")]
    Failed(Failure),
}

impl From<Failure> for RunError {
    fn from(failure: Failure) -> Self {
        RunError::Failed(failure)
    }
}

impl RunError {
    /// The failure, whichever it is.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        match self {
            RunError::CommandNotFound(failure) | RunError::NotExecutable(failure) | RunError::Failed(failure) => {
                failure
            }
        }
    }
}

/// Starts `command` as pid 1 of a new container, with the caller's environment, umask, limits and working directory (`/` where
/// the container has no such directory), and /dev/null as its input and the container's log as its output, or a terminal of its own.
/// Returns when the program has been executed. An exited container of the name is replaced.
///
/// The caller must have one thread, and is the parent of the new process.
///
/// # Errors
/// [`Kind::BadName`], [`Kind::Exists`], a command that cannot be executed, or what could not be set up. Nothing of it is left
/// then; an exited container of that name is still there.
pub fn run(registry: &Registry, name: &str, command: &[OsString], options: &RunOptions) -> Result<Record, RunError> {
    registry.container(name)?;
    let root = options.root.as_deref().map(|root| check_root(name, root)).transpose()?;
    let executable = Executable::find(name, command, root.as_deref())?;
    let claim = Claim::new(registry, name)?;
    let Claim { container, cgroup, .. } = &claim;
    let result = Attempt { registry, container, cgroup, root, options }.start(command, &executable);
    if result.is_err() {
        // The reason is told below; what cannot be removed is found by the next run or `crctl rm`.
        let _ = cgroup.kill(CLEANUP);
        let _ = fs::remove_file(new_log(container));
        claim.give_up();
    }
    result
}

/// A name that is to become a container's, held against others.
pub(crate) struct Claim {
    pub(crate) container: Container,
    /// Not made yet; what an earlier container of the name left is removed by whoever makes it.
    pub(crate) cgroup: Cgroup,
    /// Nothing of that name was known before.
    fresh: bool,
    _lock: Flock<File>,
}

impl Claim {
    /// Takes a name that nobody has, or that an exited container has.
    ///
    /// # Errors
    /// [`Kind::BadName`], [`Kind::Exists`], [`Kind::Busy`].
    pub(crate) fn new(registry: &Registry, name: &str) -> Result<Self, Failure> {
        let container = registry.container(name)?;
        let fresh = match operation::state_if_any(registry, &container)? {
            None => true,
            Some(State::Exited) => false,
            Some(state) => return Err(in_use(name, state)),
        };
        let lock = operation::hold(&container, LOCK_PATIENCE)?;
        // Again, now that nobody else can change it.
        if let Some(state) = operation::state_if_any(registry, &container)?.filter(|state| *state != State::Exited) {
            return Err(in_use(name, state));
        }
        Ok(Claim { cgroup: Cgroup::of(registry, name)?, container, fresh, _lock: lock })
    }

    /// Removes the empty cgroup, and what was made of a name that was not known before.
    pub(crate) fn give_up(self) {
        let _ = self.cgroup.remove(CLEANUP);
        self.cgroup.remove_parent_if_empty();
        if self.fresh {
            let _ = fs::remove_dir_all(self.container.dir());
        }
    }
}

fn in_use(name: &str, state: State) -> Failure {
    let remedy = match state {
        State::Running | State::Frozen => format!("take another name, or `crctl kill {name}` first"),
        State::Incoming | State::Building | State::Failed => format!("take another name, or `crctl rm {name}` first"),
        State::Exited => String::from("it is replaced by the next run"),
    };
    Failure::new(Kind::Exists, format!("{name}: the name is in use by a container that is {state}; {remedy}"))
}

fn check_root(name: &str, root: &Path) -> Result<PathBuf, Failure> {
    let path = fs::canonicalize(root).doing(|| format!("{name}: --root {}", root.display()))?;
    if path.is_dir() {
        Ok(path)
    } else {
        Err(Failure::new(Kind::System, format!("{name}: --root {}: not a directory", root.display())))
    }
}

fn new_log(container: &Container) -> PathBuf {
    container.log_file().with_extension("new")
}

/// What execve(2) gets.
struct Executable {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

impl Executable {
    fn find(name: &str, command: &[OsString], root: Option<&Path>) -> Result<Self, RunError> {
        let Some(program) = command.first().filter(|program| !program.is_empty()) else {
            return Err(Failure::new(Kind::System, format!("{name}: no command; crctl run {name} -- COMMAND")).into());
        };
        let directory = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let path = resolve::resolve(program, root, &directory, std::env::var_os("PATH").as_deref())?;
        let c_string =
            |bytes: Vec<u8>| CString::new(bytes).doing(|| format!("command {}: a NUL byte", program.display()));
        Ok(Executable {
            path: c_string(path.into_os_string().into_vec())?,
            arguments: command.iter().map(|word| c_string(word.as_bytes().to_vec())).collect::<Result<_, _>>()?,
            environment: std::env::vars_os()
                .map(|(key, value)| c_string([key.as_bytes(), b"=", value.as_bytes()].concat()))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Executes it in the calling process, with these streams as 0, 1 and 2. None of them may itself have one of these numbers.
    fn execute<F: AsFd>(&self, [input, output, error]: [F; 3]) -> std::io::Error {
        let steps = || -> nix::Result<std::convert::Infallible> {
            nix::unistd::dup2_stdin(&input)?;
            nix::unistd::dup2_stdout(&output)?;
            nix::unistd::dup2_stderr(&error)?;
            crfs_sys::close_range::close_on_exec_from(3)?;
            crfs_sys::signal::reset_all()?;
            crfs_sys::signal::set_mask(0)?;
            nix::unistd::execve(&self.path, &self.arguments, &self.environment)
        };
        match steps() {
            Err(errno) => errno.into(),
            Ok(never) => match never {},
        }
    }
}

/// What a program has as its standard streams.
enum Streams {
    /// /dev/null, and the log.
    Files { input: File, log: File },
    /// A terminal of its own, made inside, whose master is sent back.
    Terminal { size: TerminalSize, to_parent: OwnedFd },
}

impl Streams {
    /// In the new process: input, output, error.
    fn open(&self) -> std::io::Result<[OwnedFd; 3]> {
        let (input, output): (OwnedFd, OwnedFd) = match self {
            Streams::Files { input, log } => (input.try_clone()?.into(), log.try_clone()?.into()),
            Streams::Terminal { size, to_parent } => {
                let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
                let (master, slave) = console::open(&size)?;
                crfs_sys::rights::send(to_parent.as_fd(), b"m", Some(master.as_fd()))?;
                (slave.try_clone()?, slave)
            }
        };
        let error = output.try_clone()?;
        Ok([input, output, error])
    }
}

/// One start of a container: what is made on the way.
struct Attempt<'a> {
    registry: &'a Registry,
    container: &'a Container,
    cgroup: &'a Cgroup,
    root: Option<PathBuf>,
    options: &'a RunOptions,
}

impl Attempt<'_> {
    fn host_namespaces(&self) -> BTreeSet<NamespaceKind> {
        self.options.host_net.then_some(NamespaceKind::Net).into_iter().collect()
    }

    fn start(&self, command: &[OsString], executable: &Executable) -> Result<Record, RunError> {
        let name = self.container.name();
        // What an earlier container of the name left; one with tasks in it is in use and refused by `remove`.
        self.cgroup.make_anew(CLEANUP)?;
        let cgroup = self.cgroup.open()?;
        let log_path = new_log(self.container);
        // Truncated by hand: a file left by a crash. The program itself only appends.
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&log_path);
        let log = log.doing(|| format!("{}: opening", log_path.display()))?;
        log.set_len(0).doing(|| format!("{}: emptying", log_path.display()))?;
        let (streams, from_child) = match self.options.terminal {
            None => {
                let input = File::open("/dev/null").doing(|| "/dev/null: opening")?;
                (Streams::Files { input, log }, None)
            }
            Some(size) => {
                let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
                let (ours, to_parent) = pair.doing(|| "making a socket pair")?;
                (Streams::Terminal { size, to_parent }, Some(ours))
            }
        };
        let host = nix::sys::utsname::uname().doing(|| "uname(2)")?;
        let surroundings = Surroundings {
            root: self.root.clone(),
            overlay: None,
            own_devices: false,
            host_namespaces: self.host_namespaces(),
            made: BTreeMap::new(),
            hostname: self.options.hostname.clone().unwrap_or_else(|| name.into()),
            domainname: host.domainname().to_owned(),
        };
        let within = |failure: Failure| failure.within(format!("{name}: starting"));
        let newborn = clone_init(
            &surroundings,
            cgroup.as_fd(),
            None,
            |_| Ok(()),
            || match streams.open() {
                Ok(open) => executable.execute(open),
                Err(error) => error,
            },
        )
        .map_err(within)?;
        // The child's end is the child's alone now: without it there is nothing more to come.
        drop(streams);
        let master = match from_child {
            Some(socket) => crfs_sys::rights::receive(socket.as_fd(), &mut [0; 8]).doing(|| "its terminal")?.1,
            None => None,
        };
        let pid = newborn.wait_for_exec().map_err(|failure| {
            let path = executable.path.to_string_lossy();
            let reason = Failure { chain: vec![format!("command {path}"), failure.to_string()], kind: failure.kind };
            match failure.kind {
                // The file was there a moment ago, so what is missing is its interpreter or loader.
                Kind::NotFound => RunError::CommandNotFound(reason),
                Kind::Deadline => RunError::Failed(reason),
                _ => RunError::NotExecutable(reason),
            }
        })?;
        // The holder goes on writing to it.
        fs::rename(&log_path, self.container.log_file()).doing(|| format!("{}: renaming", log_path.display()))?;
        if let Some(master) = master {
            console::start(self.container, master, pid.as_raw(), &[])?;
        }
        let record = Record {
            name: name.to_owned(),
            state: State::Running,
            generation: self.registry.next_generation()?,
            cgroup: self.cgroup.path().to_owned(),
            created: operation::now(),
            command: command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
            root: self.root.clone(),
            host_namespaces: self.host_namespaces(),
            added: false,
            stub_init: None,
            init: operation::start_time(pid.as_raw()).map(|start_time| Init { pid: pid.as_raw(), start_time }),
            exit_status: None,
            inspect: false,
            restored: false,
        };
        operation::forget_image(self.registry, self.container)?;
        self.container.write_record(&record)?;
        let status = crate::registry::Status { operation: "run".into(), time: operation::now(), ..Default::default() };
        self.container.write_status(&status)?;
        Ok(record)
    }
}

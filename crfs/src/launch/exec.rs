//! Running a command inside a container that runs: `crctl exec`.
//!
//! Three processes, of which the last is the command. The first joins the namespaces; as joining a pid namespace counts for children
//! alone, it clones the second into it, and into the cgroup. A process that was cloned from outside has no parent inside and could
//! not be restored, so the second clones the third and ends, whereupon the kernel gives that to the container's init. The third passes
//! through a pidfd to the caller, whose child it is not.

use super::surroundings::{PATIENCE, parse_report, read_report};
use super::{Executable, LOCK_PATIENCE, RunError};
use crate::failure::{Doing, Failure, Kind};
use crate::freezer::Cgroup;
use crate::operation;
use crate::registry::{Registry, State};
use crate::resource::container::Place;
use crate::resource::proc::Proc;
use crate::resource::subject;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::namespaces::CLONE_NEWTIME;
use crfs_sys::{pidfd, scm};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, chdir, chroot, fchdir, getpid, getppid, pipe2, setsid};
use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a terminal or a supervisor sends, and is passed on to the command.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGUSR1, Signal::SIGUSR2];
/// Between two looks at a process that has ended and was not reaped, or that waits for its new parent.
const PAUSE: Duration = Duration::from_micros(200);

/// A command that was started inside a container.
#[derive(Debug)]
pub struct Command {
    pidfd: OwnedFd,
}

/// Executes `command` inside a running container: in its namespaces, its root and its cgroup, as a child of its init and leader of a
/// session of its own; with the caller's environment, umask and limits, and its working directory where the container has such a one.
/// Its streams are the caller's, or with `detach` /dev/null and the container's log. Returns when it was executed.
///
/// The caller must have one thread.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::WrongState`] unless the container runs, a command that cannot be executed, or what could not be joined.
pub fn exec(registry: &Registry, name: &str, command: &[OsString], detach: bool) -> Result<Command, RunError> {
    let container = registry.container(name)?;
    container.existing()?;
    // Until the command is inside, nobody may freeze.
    let _lock = operation::hold(&container, LOCK_PATIENCE)?;
    let (state, record) = operation::state(registry, name)?;
    if state != State::Running {
        let reason = format!("{name}: cannot exec in a container that is {state}; it has to run");
        return Err(Failure::new(Kind::WrongState, reason).into());
    }
    let mut proc = Proc::open()?;
    let init = subject::collect(&mut proc, &record)?.init;
    let place = Place::of(&record, init, &mut proc)?;
    let executable = Executable::find(name, command, Some(place.root()))?;
    let streams = if detach { detached(&container.log_file())? } else { inherited()? };
    let doing = || format!("{name}: process {init}: opening it");
    let inside = Inside {
        namespaces: pidfd::open_any(Pid::from_raw(init)).doing(doing)?,
        root: OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(place.root()).doing(doing)?,
        cgroup: Cgroup::at(&record.cgroup).open()?,
        directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
    };
    start(&inside, &streams, &executable).map_err(|error| match error {
        RunError::Failed(failure) => RunError::Failed(failure.within(format!("{name}: exec"))),
        other => other,
    })
}

/// Where a command is to run.
struct Inside {
    /// A pidfd of a process that is in all of the container's namespaces.
    namespaces: OwnedFd,
    root: File,
    cgroup: OwnedFd,
    directory: PathBuf,
}

/// Standard input, output and error.
type Streams = [OwnedFd; 3];

fn inherited() -> Result<Streams, Failure> {
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().doing(|| "duplicating a standard stream");
    Ok([copy(std::io::stdin().as_fd())?, copy(std::io::stdout().as_fd())?, copy(std::io::stderr().as_fd())?])
}

fn detached(log: &Path) -> Result<Streams, Failure> {
    let null = File::open("/dev/null").doing(|| "/dev/null: opening")?;
    let log_file = OpenOptions::new().create(true).append(true).mode(0o600).open(log);
    let log_file = log_file.doing(|| format!("{}: opening", log.display()))?;
    let copy = log_file.try_clone().doing(|| "duplicating the log")?;
    Ok([null.into(), log_file.into(), copy.into()])
}

fn start(inside: &Inside, streams: &Streams, executable: &Executable) -> Result<Command, RunError> {
    let (report, child_report) = pipe2(OFlag::O_CLOEXEC).doing(|| "making a pipe")?;
    let (socket, child_socket) =
        socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).doing(|| "making sockets")?;
    let arguments = CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() };
    let first = match fork_into(&arguments).doing(|| "fork")? {
        Forked::Child => told(child_report, |report| join(inside, streams, executable, &child_socket, report)),
        Forked::Parent { child, .. } => child,
    };
    drop((child_report, child_socket));
    // Ends with the exec, or with the last of the three.
    let reported = read_report(&report, Instant::now() + PATIENCE);
    // It ended, or hangs in a namespace; then it is left to its end.
    let _ = waitpid(first, Some(WaitPidFlag::WNOHANG));
    let reported = reported?;
    if !reported.is_empty() {
        let failure = parse_report(&reported);
        let of_command = failure.chain.len() == 1;
        let chain = [vec![format!("command {}", executable.path.to_string_lossy())], failure.chain.clone()].concat();
        return Err(match failure.kind {
            _ if !of_command => RunError::Failed(failure),
            Kind::NotFound => RunError::CommandNotFound(Failure { chain, kind: failure.kind }),
            _ => RunError::NotExecutable(Failure { chain, kind: failure.kind }),
        });
    }
    Ok(Command { pidfd: scm::receive(socket.as_fd()).doing(|| "receiving a pidfd of the command")? })
}

/// A child's life, which ends with an exec or with a report of why not.
fn told(report: OwnedFd, life: impl FnOnce(&OwnedFd) -> Result<Infallible, Failure>) -> ! {
    match life(&report) {
        Ok(never) => match never {},
        Err(failure) => {
            if let Ok(bytes) = serde_json::to_vec(&failure) {
                // Without a reader there is nobody to tell.
                let _ = File::from(report).write_all(&bytes);
            }
            exit_now(127)
        }
    }
}

/// The first process: joins the namespaces, and clones the second into the cgroup.
fn join(
    inside: &Inside,
    streams: &Streams,
    executable: &Executable,
    socket: &OwnedFd,
    report: &OwnedFd,
) -> Result<Infallible, Failure> {
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP
        | CLONE_NEWTIME;
    setns(inside.namespaces.as_fd(), all).doing(|| "joining the container's namespaces")?;
    fchdir(&inside.root).and_then(|()| chroot(".")).doing(|| "entering the container's root directory")?;
    if chdir(&inside.directory).is_err() {
        chdir("/").doing(|| "changing to /")?;
    }
    let arguments =
        CloneArgs { exit_signal: libc::SIGCHLD, cgroup: Some(inside.cgroup.as_fd()), ..CloneArgs::default() };
    match fork_into(&arguments).doing(|| "forking into the container")? {
        Forked::Child => {
            let report = report.try_clone().doing(|| "duplicating a pipe")?;
            told(report, |_| leave_behind(streams, executable, socket))
        }
        Forked::Parent { child, .. } => {
            let _ = waitpid(child, None);
            exit_now(0)
        }
    }
}

/// The second process: clones the third, and ends.
fn leave_behind(streams: &Streams, executable: &Executable, socket: &OwnedFd) -> Result<Infallible, Failure> {
    let own = getpid();
    let arguments = CloneArgs { exit_signal: libc::SIGCHLD, pidfd: true, ..CloneArgs::default() };
    match fork_into(&arguments).doing(|| "forking")? {
        Forked::Child => {
            while getppid() == own {
                std::thread::sleep(PAUSE);
            }
            setsid().doing(|| "setsid(2)")?;
            Err(Failure::from_error(&executable.execute(streams.each_ref())))
        }
        Forked::Parent { pidfd, .. } => {
            if let Some(pidfd) = pidfd {
                scm::send(socket.as_fd(), pidfd.as_fd()).doing(|| "passing a pidfd")?;
            }
            exit_now(0)
        }
    }
}

/// Signals that reach the caller in the place of the command. Blocked from here on.
#[derive(Debug)]
pub struct PassedOn(SignalFd);

impl PassedOn {
    /// Call it before [`exec`], so that none is lost.
    ///
    /// # Errors
    /// When they cannot be blocked.
    pub fn new() -> Result<Self, Failure> {
        let signals: SigSet = PASSED_ON.into_iter().collect();
        signals.thread_block().doing(|| "blocking signals")?;
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map(PassedOn)
            .doing(|| "signalfd(2)")
    }
}

impl Command {
    /// The command's process, as the host numbers it; None once it was reaped.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        pidfd::info(self.pidfd.as_fd()).ok().and_then(|info| info.pids).map(|(_, process, _)| process.as_raw())
    }

    /// Waits until it has ended, passing signals on, and returns its wait(2) status: None where the kernel does not tell it (before
    /// Linux 6.15, of a process that its parent has reaped).
    ///
    /// # Errors
    /// When poll(2) fails.
    pub fn wait(&self, signals: &PassedOn) -> Result<Option<i32>, Failure> {
        loop {
            let mut ready =
                [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN), PollFd::new(signals.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::NONE) {
                Err(nix::errno::Errno::EINTR) => continue,
                other => other.doing(|| "waiting for the command")?,
            };
            while let Ok(Some(signal)) = signals.0.read_signal() {
                // One that has ended needs none.
                let _ = pidfd::send_signal(self.pidfd.as_fd(), signal.ssi_signo.cast_signed());
            }
            if ready[0].revents().is_some_and(|events| !events.is_empty()) {
                return Ok(self.status());
            }
        }
    }

    /// The status of a process that has ended: of a zombie from /proc, of one that was reaped from its pidfd.
    fn status(&self) -> Option<i32> {
        let info = pidfd::info(self.pidfd.as_fd()).ok()?;
        let zombie = info.pids.and_then(|(_, process, _)| operation::exit_code(process.as_raw()));
        // Reaped since it was asked.
        zombie.or_else(|| pidfd::info(self.pidfd.as_fd()).ok()?.exit_status)
    }
}

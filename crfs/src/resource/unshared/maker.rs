//! A child of the worker that makes a namespace which the worker itself cannot make: where it depends on the cgroup that its maker lies in, or
//! takes directories that no thread shares.

use crate::failure::{Doing, Failure};
use crfs_sys::HostPid;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// For the child to tell that it goes on.
const PATIENCE: Duration = Duration::from_secs(30);
/// What it tells so: blanks before what it has to say at the end, a line of JSON.
const ALIVE: &[u8] = b" ";

/// The child, which holds still when it has done its work, until this is dropped.
#[derive(Debug)]
pub(in crate::resource) struct Maker {
    child: Pid,
    /// Its end is that of the child.
    line: UnixStream,
    /// What its work made, by its own numbers.
    handed: Vec<RawFd>,
}

impl Maker {
    /// Makes a child, in a cgroup if it is to be in another, and returns when it has done its work, which may take as long as it tells now and then that it goes on.
    ///
    /// The caller must have one thread.
    ///
    /// # Errors
    /// When no child can be made there, and those of its work.
    pub(in crate::resource) fn born(
        cgroup: Option<BorrowedFd<'_>>,
        work: impl FnOnce(&mut dyn FnMut()) -> Result<Vec<OwnedFd>, Failure>,
    ) -> Result<Self, Failure> {
        let (line, theirs) = UnixStream::pair().doing(|| "making a pair of sockets")?;
        let arguments = CloneArgs { exit_signal: libc::SIGCHLD, cgroup, ..CloneArgs::default() };
        let child = match fork_into(&arguments).doing(|| "making a process in its cgroup with clone3(2)")? {
            Forked::Child => {
                drop(line);
                live(theirs, work)
            }
            Forked::Parent { child, .. } => child,
        };
        drop(theirs);
        let mut maker = Maker { child, line, handed: Vec::new() };
        maker.line.set_read_timeout(Some(PATIENCE)).doing(|| "setting a deadline")?;
        let mut said = Vec::new();
        BufReader::new(&maker.line).read_until(b'\n', &mut said).doing(|| "waiting for the process that makes it")?;
        let done: Result<Vec<RawFd>, Failure> =
            serde_json::from_slice(&said).doing(|| "the process that makes it has ended")?;
        maker.handed = done?;
        Ok(maker)
    }

    /// As [`Maker::born`], in the pid namespace of a process, which is what a new file system of /proc shows and what a new pid namespace lies
    /// in. The child's work finds no process under the number that it has for the caller.
    ///
    /// # Errors
    /// As [`Maker::born`].
    pub(in crate::resource) fn born_beside(
        first: HostPid,
        cgroup: Option<BorrowedFd<'_>>,
        work: impl FnOnce(&mut dyn FnMut()) -> Result<Vec<OwnedFd>, Failure>,
    ) -> Result<Self, Failure> {
        let open = |process: String| {
            let path = format!("/proc/{process}/ns/pid");
            File::open(&path).doing(|| format!("{path}: opening"))
        };
        let (own, theirs) = (open("self".to_owned())?, open(first.raw().to_string())?);
        setns(&theirs, CloneFlags::CLONE_NEWPID).doing(|| "setns(2)")?;
        let born = Self::born(cgroup, work);
        setns(&own, CloneFlags::CLONE_NEWPID).doing(|| "going back to the own pid namespace")?;
        born
    }

    /// Takes over what its work made, by its place there.
    ///
    /// # Errors
    /// When there is nothing there, or the child has ended.
    pub(in crate::resource) fn take(&self, index: usize) -> Result<OwnedFd, Failure> {
        let number = self.handed.get(index).copied().ok_or(Errno::EBADF);
        let taken = number.and_then(|number| crfs_sys::pidfd::getfd(self.pidfd()?.as_fd(), number));
        taken.doing(|| "taking over what a process made")
    }

    /// A descriptor for the child.
    ///
    /// # Errors
    /// `ESRCH` when it is gone.
    pub(in crate::resource) fn pidfd(&self) -> nix::Result<OwnedFd> {
        crfs_sys::pidfd::open(self.child, false)
    }

    /// The child.
    pub(in crate::resource) fn pid(&self) -> Pid {
        self.child
    }

    /// Opens a file of the child in /proc.
    ///
    /// # Errors
    /// When there is none.
    pub(in crate::resource) fn open(&self, file: &str) -> Result<File, Failure> {
        let path = format!("/proc/{}/{file}", self.child);
        File::open(&path).doing(|| format!("{path}: opening"))
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        // It is our child, and nobody else waits for it.
        let _ = kill(self.child, Signal::SIGKILL);
        let _ = waitpid(self.child, None);
    }
}

/// The child's life.
fn live(mut line: UnixStream, work: impl FnOnce(&mut dyn FnMut()) -> Result<Vec<OwnedFd>, Failure>) -> ! {
    let done = work(&mut || {
        let _ = line.write_all(ALIVE);
    });
    let handed = done.as_ref().map(|made| made.iter().map(AsRawFd::as_raw_fd).collect::<Vec<RawFd>>());
    let told = serde_json::to_vec(&handed).is_ok_and(|said| line.write_all(&[&said, &b"\n"[..]].concat()).is_ok());
    if told {
        // Until the worker has ended, should it not end this first.
        let _ = line.read(&mut [0]);
    }
    exit_now(0)
}

//! From the records to namespaces that processes join.

use crate::failure::{Doing, Failure, Kind};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tracee::{Batch, CallId};
use image_format::Pid;
use image_format::layout::NAMESPACES;
use image_format::namespaces::{NamespaceContent, UnsharedNamespace};
use image_format::user_namespaces::{IdRange, UserNamespace};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid as HostPid, Uid, seteuid};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;

/// User namespaces, held open by the worker.
#[derive(Debug)]
pub struct UserNamespaces(Vec<(File, BTreeSet<Pid>)>);

impl UserNamespaces {
    /// Makes them by children of the calling process, which must have one thread.
    ///
    /// # Errors
    /// When one cannot be made, with its line.
    pub fn make(records: &[UnsharedNamespace]) -> Result<Self, Failure> {
        let mut made = Vec::new();
        for (line, record) in (1..).zip(records) {
            if let NamespaceContent::User(user) = &record.content {
                let open = make(user).map_err(|failure| failure.within(format!("{NAMESPACES}: line {line}")))?;
                made.push((open, record.processes.iter().copied().collect()));
            }
        }
        Ok(UserNamespaces(made))
    }

    /// The one that a process is in, if not the container's own.
    #[must_use]
    pub fn of(&self, pid: Pid) -> Option<&File> {
        self.0.iter().find(|(_, members)| members.contains(&pid)).map(|(open, _)| open)
    }

    /// A path to it.
    #[must_use]
    pub fn path(&self, pid: Pid) -> Option<String> {
        Some(format!("/proc/self/fd/{}", self.of(pid)?.as_raw_fd()))
    }
}

/// The call by which a process pulls one from the worker, of which `link` is its pidfd.
pub fn pull(batch: &mut Batch, namespace: &File, link: u32) -> CallId {
    let source = namespace.as_raw_fd();
    batch.call(libc::SYS_pidfd_getfd, &[link.into(), source.into(), 0u32.into()], "pidfd_getfd")
}

/// The calls by which it joins what it pulled.
pub fn join(batch: &mut Batch, pulled: CallId) {
    batch.call(libc::SYS_setns, &[pulled.into(), libc::CLONE_NEWUSER.into()], "setns");
    batch.call(libc::SYS_close, &[pulled.into()], "close");
}

fn make(record: &UserNamespace) -> Result<File, Failure> {
    let (mut told, tell) = pipe().doing(|| "making a pipe")?;
    let (stay, go) = pipe().doing(|| "making a pipe")?;
    let child = match fork_into(&CloneArgs::default()).doing(|| "making a process for a user namespace")? {
        Forked::Child => {
            drop((told, go));
            live(record.owner, tell, stay)
        }
        Forked::Parent { child, .. } => child,
    };
    drop((tell, stay));
    let is_made = matches!(told.read(&mut [0]), Ok(1));
    let open = if is_made { fill(record, child).map(Some) } else { Ok(None) };
    drop(go);
    let ended = waitpid(child, Some(WaitPidFlag::__WALL)).doing(|| "waiting for the process of a user namespace")?;
    let refused = || {
        let errno = if let WaitStatus::Exited(_, errno) = ended { Errno::from_raw(errno) } else { Errno::ECHILD };
        Failure::new(Kind::System, format!("making a user namespace: {}", errno.desc()))
    };
    open?.ok_or_else(refused)
}

/// The life of the process that makes one: until its maps are written. Its exit status is an errno.
fn live(owner: u32, mut tell: PipeWriter, mut stay: PipeReader) -> ! {
    let made = seteuid(Uid::from_raw(owner)).and_then(|()| unshare(CloneFlags::CLONE_NEWUSER));
    if let Err(errno) = made {
        exit_now(errno as i32);
    }
    let told = tell.write_all(&[0]).and_then(|()| stay.read(&mut [0]));
    exit_now(told.map_or(libc::EIO, |_| 0))
}

fn fill(record: &UserNamespace, process: HostPid) -> Result<File, Failure> {
    let path = |name: &str| format!("/proc/{process}/{name}");
    let write = |name: &str, text: String| fs::write(path(name), text).doing(|| format!("{name}: writing it"));
    if !record.setgroups {
        write("setgroups", "deny".to_owned())?;
    }
    for (name, map) in [("uid_map", &record.uid_map), ("gid_map", &record.gid_map)] {
        if !map.is_empty() {
            write(name, map.iter().map(line).collect())?;
        }
    }
    File::open(path("ns/user")).doing(|| "opening a user namespace")
}

fn line(IdRange { inside, outside, count }: &IdRange) -> String {
    format!("{inside} {outside} {count}\n")
}

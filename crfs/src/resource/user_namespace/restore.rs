//! From the records to namespaces that processes join.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::unshared::maker::Maker;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tracee::{Batch, CallId};
use image_format::Pid;
use image_format::layout::NAMESPACES;
use image_format::namespaces::{NamespaceContent, UnsharedNamespace};
use image_format::user_namespaces::{IdRange, UserNamespace, inside};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid as HostPid, Uid, setegid, seteuid};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, AsRawFd};

/// User namespaces, held open by the worker.
#[derive(Debug)]
pub struct UserNamespaces<'a>(Vec<One<'a>>);

#[derive(Debug)]
struct One<'a> {
    open: File,
    record: &'a UserNamespace,
    members: BTreeSet<Pid>,
}

impl<'a> UserNamespaces<'a> {
    /// Makes them by children of the calling process, which must have one thread.
    ///
    /// # Errors
    /// When one cannot be made, with its line.
    pub fn make(records: &'a [UnsharedNamespace]) -> Result<Self, Failure> {
        let mut made = UserNamespaces(Vec::new());
        for (line, namespace) in (1..).zip(records) {
            if let NamespaceContent::User(record) = &namespace.content {
                let open = match made.by_number(namespace.user) {
                    None => make(record),
                    Some(above) => make_in(record, above),
                };
                let open = open.map_err(|failure| failure.within(format!("{NAMESPACES}: line {line}")))?;
                made.0.push(One { open, record, members: namespace.processes.iter().copied().collect() });
            }
        }
        Ok(made)
    }

    fn by_number(&self, number: Option<u32>) -> Option<&One<'a>> {
        self.0.get(usize::try_from(number?).ok()?.checked_sub(1)?)
    }

    /// The one of a number, as namespaces that belong to it have it, and its record. None: the container's own.
    #[must_use]
    pub fn owner(&self, number: Option<u32>) -> Option<(&File, &'a UserNamespace)> {
        self.by_number(number).map(|one| (&one.open, one.record))
    }

    /// The one that a process is in, if not the container's own.
    #[must_use]
    pub fn of(&self, pid: Pid) -> Option<&File> {
        self.0.iter().find(|one| one.members.contains(&pid)).map(|one| &one.open)
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

/// Has the calling process, which has one thread and is a child of the worker, join a user namespace, if it is to be in one.
///
/// # Errors
/// When the system refuses.
pub fn enter(user: Option<&File>) -> Result<(), Failure> {
    user.map_or(Ok(()), |user| setns(user, CloneFlags::CLONE_NEWUSER).doing(|| "joining a user namespace"))
}

fn make(record: &UserNamespace) -> Result<File, Failure> {
    let (child, stay) = begin(record.owner, None)?;
    let filled = fill(child, record.setgroups, [&record.uid_map, &record.gid_map]);
    let path = format!("/proc/{child}/ns/user");
    let made = filled.and_then(|()| File::open(&path).doing(|| format!("{path}: opening")));
    drop(stay);
    waitpid(child, Some(WaitPidFlag::__WALL)).doing(|| "waiting for the process of a user namespace")?;
    made
}

/// Makes one in another, by a child that joins that one: only who is in it may write the maps.
fn make_in(record: &UserNamespace, above: &One<'_>) -> Result<File, Failure> {
    let nobody = || Failure::new(Kind::System, "an id has no other in the user namespace around it");
    let ids = |map: &[IdRange], around: &[IdRange]| -> Option<Vec<IdRange>> {
        let range = |range: &IdRange| Some(IdRange { outside: inside(around, range.outside)?, ..*range });
        map.iter().map(range).collect()
    };
    let uids = ids(&record.uid_map, &above.record.uid_map).ok_or_else(nobody)?;
    let gids = ids(&record.gid_map, &above.record.gid_map).ok_or_else(nobody)?;
    let owner = inside(&above.record.uid_map, record.owner).ok_or_else(nobody)?;
    // Which group made it nobody can tell later; it must be one.
    let group = above.record.gid_map.first().map(|range| range.inside).ok_or_else(nobody)?;
    let maker = Maker::born(None, |_| {
        enter(Some(&above.open))?;
        let (child, stay) = begin(owner, Some(group))?;
        fill(child, record.setgroups, [&uids, &gids])?;
        let child = crfs_sys::pidfd::open(child, false).doing(|| "opening a pidfd of who made it")?;
        Ok(vec![child, stay.into()])
    })?;
    let child = maker.take(0)?;
    crfs_sys::namespaces::user_of(child.as_fd()).map(File::from).doing(|| "opening it, which Linux 6.11 or later can")
}

/// Makes a child of the caller that begins a user namespace, as this user and perhaps group, and lives while what is returned with it is open.
fn begin(owner: u32, group: Option<u32>) -> Result<(HostPid, PipeWriter), Failure> {
    let (mut told, tell) = pipe().doing(|| "making a pipe")?;
    let (stay, go) = pipe().doing(|| "making a pipe")?;
    let child = match fork_into(&CloneArgs::default()).doing(|| "making a process for a user namespace")? {
        Forked::Child => {
            drop((told, go));
            live((owner, group), tell, stay)
        }
        Forked::Parent { child, .. } => child,
    };
    drop((tell, stay));
    if matches!(told.read(&mut [0]), Ok(1)) {
        return Ok((child, go));
    }
    drop(go);
    let ended = waitpid(child, Some(WaitPidFlag::__WALL)).doing(|| "waiting for the process of a user namespace")?;
    let errno = if let WaitStatus::Exited(_, errno) = ended { Errno::from_raw(errno) } else { Errno::ECHILD };
    Err(Failure::new(Kind::System, format!("making a user namespace: {}", errno.desc())))
}

/// The life of the process that makes one: until nobody needs it. Its exit status is an errno.
fn live((owner, group): (u32, Option<u32>), mut tell: PipeWriter, mut stay: PipeReader) -> ! {
    let made = group.map_or(Ok(()), |group| setegid(Gid::from_raw(group)));
    let made = made.and_then(|()| seteuid(Uid::from_raw(owner)));
    if let Err(errno) = made.and_then(|()| unshare(CloneFlags::CLONE_NEWUSER)) {
        exit_now(errno as i32);
    }
    let told = tell.write_all(&[0]).and_then(|()| stay.read(&mut [0]));
    exit_now(told.map_or(libc::EIO, |_| 0))
}

/// Writes its maps.
fn fill(process: HostPid, setgroups: bool, [uids, gids]: [&[IdRange]; 2]) -> Result<(), Failure> {
    let path = |name: &str| format!("/proc/{process}/{name}");
    let write = |name: &str, text: String| fs::write(path(name), text).doing(|| format!("{name}: writing it"));
    if !setgroups {
        write("setgroups", "deny".to_owned())?;
    }
    for (name, map) in [("uid_map", uids), ("gid_map", gids)] {
        if !map.is_empty() {
            write(name, map.iter().map(line).collect())?;
        }
    }
    Ok(())
}

fn line(IdRange { inside, outside, count }: &IdRange) -> String {
    format!("{inside} {outside} {count}\n")
}

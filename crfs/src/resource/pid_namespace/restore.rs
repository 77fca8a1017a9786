//! From the records to namespaces that processes are born into.

use super::next_id;
use crate::failure::{Doing, Failure, Kind};
use crate::freezer;
use crate::resource::proc::{Proc, Status};
use crate::resource::unshared::maker::Maker;
use crate::resource::user_namespace::{self, UserNamespaces};
use crfs_tracee::{Batch, HostPid};
use image_format::layout::{NAMESPACES, process_dir};
use image_format::namespaces::NamespaceContent;
use image_format::pid_namespaces::{PidSpace, PidSpaces};
use image_format::{Image, Pid};
use nix::sched::{CloneFlags, unshare};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// CLONE_NEWPID, as clone3(2) takes it.
pub const NEW: u64 = 0x2000_0000;

/// The pid namespaces below the container's own, held open by the worker once their first processes are there.
#[derive(Debug)]
pub struct PidNamespaces<'a> {
    spaces: PidSpaces<'a>,
    /// The container's own.
    own: File,
    open: BTreeMap<PidSpace, File>,
    /// Those that lie in another and are made before anybody is in them, with the user namespace that they belong to: begun once the first process
    /// of that other is there.
    late: BTreeMap<PidSpace, Option<File>>,
}

impl<'a> PidNamespaces<'a> {
    /// Those of an image, below that of its first process. Those that a /proc shows, or that belong to a
    /// user namespace inside, are made, before anybody is in them, but for those that lie in each other.
    ///
    /// The caller must have one thread.
    ///
    /// # Errors
    /// When one cannot be made, with its line.
    pub fn make(
        image: &'a Image,
        first: HostPid,
        cgroup: &freezer::Cgroup,
        users: &UserNamespaces<'_>,
    ) -> Result<Self, Failure> {
        let spaces = PidSpaces::of(&image.namespaces);
        let (mut open_now, mut late) = (BTreeMap::new(), BTreeMap::new());
        let lines = image.namespaces.iter().filter(|line| matches!(line.content, NamespaceContent::Pid(_)));
        for ((space, pids), line) in spaces.all().zip(lines) {
            let user = users.owner(line.user).map(|(open, _)| open);
            // Several threads have it for children that none of them has yet.
            let is_shared = pids.ids.is_empty() && pids.for_children_of.len() > 1;
            let in_advance_only = user.is_some() || is_shared || !pids.shown_by.is_empty();
            if in_advance_only && spaces.above(space).is_some() {
                let user = user.map(File::try_clone).transpose();
                late.insert(space, user.doing(|| "duplicating a descriptor")?);
            } else if in_advance_only {
                let made =
                    in_advance(first, Some(cgroup.open()?.as_fd()), user).map_err(|failure| failure.within(NAMESPACES));
                open_now.insert(space, made?);
            }
        }
        Ok(PidNamespaces { spaces, own: open(first)?, open: open_now, late })
    }

    /// The first process of the one in which this one is still to be begun, by [`PidNamespaces::begin`].
    #[must_use]
    pub fn begun_beside(&self, space: PidSpace) -> Option<Pid> {
        let is_missing = self.late.contains_key(&space) && !self.is_there(space);
        is_missing.then(|| self.spaces.first(self.spaces.above(space)?)).flatten()
    }

    /// Makes such a one, given that first process as the host numbers it.
    ///
    /// The caller must have one thread.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn begin(&mut self, space: PidSpace, first: HostPid) -> Result<(), Failure> {
        let user = self.late.get(&space).and_then(Option::as_ref);
        let made = in_advance(first, None, user).map_err(|failure| failure.within(NAMESPACES))?;
        self.open.insert(space, made);
        Ok(())
    }

    /// The one that a thread has for its children, where that is not its own.
    #[must_use]
    pub fn of_children(&self, tid: Pid) -> Option<PidSpace> {
        self.spaces.of_children(tid)
    }

    /// Has the next task that is born where one was take its ids.
    ///
    /// The caller must have one thread.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn offer(&self, id: Pid) -> Result<(), Failure> {
        let inner = self.spaces.all().filter(|(_, pids)| pids.ids.contains_key(&id)).map(|(space, _)| space);
        let mut around: Vec<&File> =
            [&self.own].into_iter().chain(inner.filter_map(|space| self.open.get(&space))).collect();
        // Who offers one takes an id of its own in each of them that is further out.
        around.reverse();
        around.into_iter().zip(self.ids(id)?).try_for_each(|(namespace, id)| next_id::offer(namespace, id))
    }

    /// Looks whether a task that was just made, by the number that the host has for it, has the ids of this one.
    ///
    /// # Errors
    /// [`Kind::Incompatible`] when it has others.
    pub fn expect(&self, id: Pid, host: HostPid) -> Result<(), Failure> {
        let wanted = self.spaces.ids(id);
        let ids = Status::read(&mut Proc::open()?, &format!("{}/status", host.raw()))?.ns_pid;
        if ids.iter().rev().zip(&wanted).all(|(is, wanted)| Pid(*is) == *wanted) {
            return Ok(());
        }
        let reason = format!("id {id} is in use, or was taken by another while the container was being restored");
        Err(Failure::new(Kind::Incompatible, reason))
    }

    /// The one that a line of `mounts` shows, if not the container's own.
    #[must_use]
    pub fn shown_by(&self, mount: u32) -> Option<&File> {
        let (space, _) = self.spaces.all().find(|(_, pids)| pids.shown_by.contains(&mount))?;
        self.open.get(&space)
    }

    /// Whether one is there.
    #[must_use]
    pub fn is_there(&self, space: PidSpace) -> bool {
        self.open.contains_key(&space)
    }

    /// What a task is called by another.
    ///
    /// # Errors
    /// [`Kind::BadImage`] where that does not know it.
    pub fn seen_by(&self, viewer: Pid, id: Pid) -> Result<Pid, Failure> {
        self.spaces.seen_by(viewer, id).ok_or_else(|| {
            let object = process_dir(viewer);
            Failure::new(Kind::BadImage, format!("{object}: {id} is not known in its pid namespace ({NAMESPACES})"))
        })
    }

    /// The ids of a task, as clone3(2) takes them.
    ///
    /// # Errors
    /// [`Kind::BadImage`] for one that no kernel has.
    pub fn ids(&self, id: Pid) -> Result<Vec<i32>, Failure> {
        numbers(&self.spaces.ids(id))
    }

    /// Keeps the namespace of a process that was just made, if it is its first.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn keep(&mut self, pid: Pid, host: HostPid) -> Result<(), Failure> {
        let begun = self.spaces.space(pid).filter(|_| self.spaces.is_first(pid));
        if let Some(space) = begun.filter(|&space| !self.is_there(space)) {
            self.open.insert(space, open(host)?);
        }
        Ok(())
    }

    /// The calls by which a process has its next child born into a namespace below its own.
    ///
    /// # Errors
    /// [`Kind::System`] where that is not there yet.
    pub fn aim(&self, batch: &mut Batch, space: PidSpace, link: u32) -> Result<(), Failure> {
        let missing = || Failure::new(Kind::System, format!("{NAMESPACES}: a pid namespace is not there yet"));
        join(batch, self.open.get(&space).ok_or_else(missing)?, link);
        Ok(())
    }

    /// The calls by which a thread, for whose later children there is another namespace than its own, has them born there.
    ///
    /// # Errors
    /// As [`PidNamespaces::aim`].
    pub fn aim_later(&self, batch: &mut Batch, tid: Pid, link: u32) -> Result<(), Failure> {
        match self.spaces.of_children(tid) {
            Some(space) if self.spaces.first(space).is_some() || self.is_there(space) => self.aim(batch, space, link),
            Some(_) => {
                batch.call(libc::SYS_unshare, &[NEW.into()], "unshare(CLONE_NEWPID)");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A path to that of a process of the image; None where it is the container's own.
    #[must_use]
    pub fn path(&self, pid: Pid) -> Option<String> {
        let open = self.open.get(&self.spaces.space(pid)?)?;
        Some(format!("/proc/self/fd/{}", open.as_raw_fd()))
    }
}

/// Makes one below that of a process, which nobody is in. A child of the caller begins it, born beside that process, since only who is in a
/// pid namespace can begin one in it.
fn in_advance(first: HostPid, cgroup: Option<BorrowedFd<'_>>, user: Option<&File>) -> Result<File, Failure> {
    let begun = Maker::born_beside(first, cgroup, |_| {
        user_namespace::enter(user)?;
        unshare(CloneFlags::CLONE_NEWPID).doing(|| "unshare(2)").map(|()| Vec::new())
    })?;
    let pidfd = begun.pidfd().doing(|| "opening a pidfd of who made it")?;
    let made = crfs_sys::namespaces::of_children(pidfd.as_fd());
    made.map(File::from).doing(|| "opening it, which Linux 6.11 or later can")
}

/// The namespace that a process is in.
///
/// # Errors
/// When it is gone.
pub fn open(host: HostPid) -> Result<File, Failure> {
    let path = format!("/proc/{}/ns/pid", host.raw());
    File::open(&path).doing(|| format!("{path}: opening"))
}

/// The calls by which a process has its next child born into a namespace that the worker has open. `link` is its pidfd of the worker.
pub fn join(batch: &mut Batch, namespace: &File, link: u32) {
    let source = namespace.as_raw_fd();
    let pulled = batch.call(libc::SYS_pidfd_getfd, &[link.into(), source.into(), 0u32.into()], "pidfd_getfd");
    batch.call(libc::SYS_setns, &[pulled.into(), NEW.into()], "setns");
    batch.call(libc::SYS_close, &[pulled.into()], "close");
}

/// Ids as the kernel takes them.
///
/// # Errors
/// [`Kind::BadImage`] for one that no kernel has.
pub fn numbers(ids: &[Pid]) -> Result<Vec<i32>, Failure> {
    let number = |id: &Pid| i32::try_from(id.0).map_err(|_| Failure::new(Kind::BadImage, "a pid is too large"));
    ids.iter().map(number).collect()
}

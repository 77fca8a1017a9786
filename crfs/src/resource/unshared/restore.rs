//! From the records to namespaces that processes join.

use super::cgroup;
use super::maker::Maker;
use crate::failure::{Doing, Failure};
use crate::freezer::Cgroup;
use crate::launch::set_names;
use crate::resource::cgroup::restore::Tree;
use crate::resource::user_namespace::{self, UserNamespaces};
use crfs_sys::sockets::bring_loopback_up;
use crfs_tracee::Batch;
use image_format::files::NamespaceType;
use image_format::layout::NAMESPACES;
use image_format::manifest::NamespaceKind;
use image_format::namespaces::{CgroupRoot, NamespaceContent, UnsharedNamespace};
use image_format::{Image, Pid};
use nix::sched::{CloneFlags, setns, unshare};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

/// The namespaces that are not the container's own, held open by the worker.
#[derive(Debug)]
pub struct Made(Vec<One>);

#[derive(Debug)]
struct One {
    kind: NamespaceType,
    flag: CloneFlags,
    open: File,
    members: BTreeSet<Pid>,
}

impl Made {
    /// Makes them, but for mount namespaces, from the calling process, which is back in its own afterwards and must have one thread. No cgroup offers controllers
    /// yet.
    ///
    /// # Errors
    /// When one cannot be made, with its line.
    pub fn make(
        records: &[UnsharedNamespace],
        cgroups: &Tree<'_>,
        users: &UserNamespaces<'_>,
    ) -> Result<Self, Failure> {
        let make = |(index, record): (usize, &UnsharedNamespace)| {
            let user = users.owner(record.user).map(|(open, _)| open);
            let (flag, open) = match &record.content {
                NamespaceContent::Cgroup(CgroupRoot { root }) => {
                    let made = cgroups.open(root).and_then(|directory| cgroup::make(directory.as_fd(), root, user));
                    (CloneFlags::CLONE_NEWCGROUP, made)
                }
                // Made with what is mounted there.
                NamespaceContent::Mnt(_) => return None,
                // Filled when all are there.
                NamespaceContent::Ipc(_) => make(record, user, CloneFlags::CLONE_NEWIPC, || Ok(())),
                NamespaceContent::Net(network) => {
                    make(record, user, CloneFlags::CLONE_NEWNET, || match network.loopback {
                        true => bring_loopback_up().doing(|| "bringing up lo"),
                        false => Ok(()),
                    })
                }
                NamespaceContent::Uts(names) => make(record, user, CloneFlags::CLONE_NEWUTS, || {
                    set_names(OsStr::from_bytes(&names.hostname.0), OsStr::from_bytes(&names.domainname.0))
                }),
                // Made with its first process, or by a process of its own.
                NamespaceContent::Pid(_) | NamespaceContent::Time(_) | NamespaceContent::User(_) => return None,
            };
            let open = open.map_err(|failure| failure.within(format!("{NAMESPACES}: line {}", index + 1)));
            let members = record.processes.iter().copied().collect();
            Some(open.map(|open| One { kind: record.kind(), flag, open, members }))
        };
        Ok(Made(records.iter().enumerate().filter_map(make).collect::<Result<_, Failure>>()?))
    }

    /// The calls by which a thread of a process joins those that the process is in. `link` is its pidfd of the caller.
    pub fn join(&self, batch: &mut Batch, pid: Pid, link: u32) {
        // An ipc namespace it joined when it was born.
        let joined = self.0.iter().filter(|one| one.kind != NamespaceType::Ipc && one.members.contains(&pid));
        for One { flag, open, .. } in joined {
            enter(batch, open, *flag, link);
        }
    }

    /// Those of a type, in the order of the records.
    ///
    /// # Errors
    /// When the worker has no room for more descriptors.
    pub fn of_type(&self, kind: NamespaceType) -> Result<Vec<File>, Failure> {
        let found = self.0.iter().filter(|one| one.kind == kind);
        found.map(|one| one.open.try_clone().doing(|| "duplicating a namespace")).collect()
    }

    /// A path to that of a type that a process is to be in; None where it is the container's own.
    #[must_use]
    pub fn path(&self, kind: NamespaceType, pid: Pid) -> Option<String> {
        let one = self.0.iter().find(|one| one.kind == kind && one.members.contains(&pid))?;
        Some(format!("/proc/self/fd/{}", one.open.as_raw_fd()))
    }
}

/// The container's own namespaces that belong to a user namespace inside, but for that of mounts, with nothing in them. `cgroup` is the container's.
///
/// The caller must have one thread.
///
/// # Errors
/// When one cannot be made.
pub fn of_container(
    image: &Image,
    cgroup: &Cgroup,
    users: &UserNamespaces<'_>,
) -> Result<BTreeMap<NamespaceKind, File>, Failure> {
    let mut made = BTreeMap::new();
    for kind in NamespaceKind::ALL {
        let flag = match kind {
            NamespaceKind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
            NamespaceKind::Ipc => CloneFlags::CLONE_NEWIPC,
            NamespaceKind::Net => CloneFlags::CLONE_NEWNET,
            NamespaceKind::Uts => CloneFlags::CLONE_NEWUTS,
            // Made with what is mounted there; always the container's.
            NamespaceKind::Mnt | NamespaceKind::Pid => continue,
        };
        let Some((user, _)) = users.owner(image.user_of_container(kind)) else { continue };
        let directory = cgroup.open()?;
        let maker = Maker::born(Some(directory.as_fd()), |_| {
            user_namespace::enter(Some(user))?;
            unshare(flag).doing(|| "unshare(2)").map(|()| Vec::new())
        });
        let open = maker.and_then(|maker| maker.open(&format!("ns/{}", kind.name())));
        made.insert(kind, open.map_err(|failure| failure.within(format!("{NAMESPACES}: container: {}", kind.name())))?);
    }
    Ok(made)
}

/// The calls by which a process joins a namespace that the worker has open. `link` is its pidfd of the worker.
pub(in crate::resource) fn enter(batch: &mut Batch, open: &File, flag: CloneFlags, link: u32) {
    let source = open.as_raw_fd();
    let pulled = batch.call(libc::SYS_pidfd_getfd, &[link.into(), source.into(), 0u32.into()], "pidfd_getfd");
    batch.call(libc::SYS_setns, &[pulled.into(), flag.bits().into()], "setns");
    batch.call(libc::SYS_close, &[pulled.into()], "close");
}

fn current(kind: NamespaceType) -> Result<File, Failure> {
    let path = format!("/proc/self/ns/{}", kind.name());
    File::open(&path).doing(|| format!("{path}: opening"))
}

/// Makes and fills a namespace: in a child that is in the user namespace that it belongs to, or in the calling process, which goes back
/// to its own.
fn make(
    record: &UnsharedNamespace,
    user: Option<&File>,
    flag: CloneFlags,
    fill: impl FnOnce() -> Result<(), Failure>,
) -> (CloneFlags, Result<File, Failure>) {
    let kind = record.kind();
    let made = match user {
        None => here(kind, flag, fill),
        Some(_) => Maker::born(None, |_| {
            user_namespace::enter(user)?;
            unshare(flag).doing(|| "unshare(2)")?;
            fill().map(|()| Vec::new())
        })
        .and_then(|maker| maker.open(&format!("ns/{}", kind.name()))),
    };
    (flag, made)
}

fn here(kind: NamespaceType, flag: CloneFlags, fill: impl FnOnce() -> Result<(), Failure>) -> Result<File, Failure> {
    let back = current(kind)?;
    unshare(flag).doing(|| "unshare(2)")?;
    let made = fill().and_then(|()| current(kind));
    setns(back.as_fd(), flag).doing(|| "going back to the own namespace")?;
    made
}

//! From the records to mount namespaces apart, before there are processes that join them.

use super::contents::detached;
use super::lowered::{self, Owner};
use super::restore::{Furniture, is_of_a_terminal, path};
use crate::failure::{Doing, Failure};
use crate::freezer;
use crate::resource::pid_namespace::PidNamespaces;
use crate::resource::unshared::maker::Maker;
use crate::resource::user_namespace::UserNamespaces;
use crfs_sys::HostPid;
use crfs_tracee::Batch;
use image_format::files::FileKind;
use image_format::layout::NAMESPACES;
use image_format::mounts::{FileSystem, FreshMount, Mount, MountKind};
use image_format::namespaces::MountNamespace;
use image_format::{Bytes, FileId, Image, Pid};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// The mount namespaces of a container, held open by the worker: its own, and those apart by their numbers.
#[derive(Debug)]
pub struct Made(Vec<One>);

#[derive(Debug)]
struct One {
    namespace: File,
    root: File,
}

impl Made {
    /// Makes those apart, for a container whose first process has its own.
    ///
    /// The caller must have one thread, and no cgroup offers controllers yet.
    ///
    /// # Errors
    /// With the line of `mounts` that this host refuses.
    pub fn make(
        image: &Image,
        furniture: &Furniture<'_>,
        first: HostPid,
        cgroup: &freezer::Cgroup,
        pids: &PidNamespaces<'_>,
        users: &UserNamespaces<'_>,
    ) -> Result<Self, Failure> {
        let open = |name: &str, flags: i32| {
            let path = format!("/proc/{}/{name}", first.raw());
            File::options().read(true).custom_flags(flags).open(&path).doing(|| format!("{path}: opening"))
        };
        let mut made = Made(vec![One { namespace: open("ns/mnt", 0)?, root: open("root", libc::O_PATH)? }]);
        let of = |maker: Maker| Ok(One { namespace: maker.open("ns/mnt")?, root: maker.open("root")? });
        let pidfd = crfs_sys::pidfd::open(first.pid(), false).doing(|| "opening a pidfd of the first process")?;
        let late = image.late_mounts();
        if let Some(owner) = users.owner(image.user_of_mounts(0)) {
            let directory = cgroup.open()?;
            let one = Maker::born_beside(first, Some(directory.as_fd()), |alive| {
                let base = made.0[0].namespace.as_fd();
                furniture.mount_lowered((pidfd.as_fd(), base), pids, owner, alive).map(|()| Vec::new())
            });
            made.0[0] = one.and_then(of)?;
        } else if !late.is_empty() {
            let directory = cgroup.open()?;
            Maker::born_beside(first, Some(directory.as_fd()), |alive| {
                furniture.mount_late(&late, made.0[0].namespace.as_fd(), pids, alive).map(|()| Vec::new())
            })?;
        }
        for (content, _) in image.mount_namespaces() {
            let directory = cgroup.open()?;
            let base = made.one(content.base).namespace.as_fd();
            let owners = [content.base, content.number].map(|number| users.owner(image.user_of_mounts(number)));
            let one = Maker::born_beside(first, Some(directory.as_fd()), |alive| {
                furniture.mount_apart(content, (pidfd.as_fd(), base), pids, owners, alive).map(|()| Vec::new())
            });
            made.0.push(
                one.and_then(of).map_err(|failure| failure.within(format!("{NAMESPACES}: mnt {}", content.number)))?,
            );
        }
        Ok(made)
    }

    /// Binds what shows a terminal in the container's own mount namespace, when terminals are there.
    ///
    /// # Errors
    /// With the line of `mounts` at which this host refuses.
    pub fn bind_terminals(&self, furniture: &Furniture<'_>, first: HostPid) -> Result<(), Failure> {
        let records =
            || furniture.image.mounts.iter().filter(|record| record.namespace == 0 && is_of_a_terminal(record));
        if records().next().is_none() {
            return Ok(());
        }
        // In no cgroup of the container: one that offers controllers takes no process.
        Maker::born_beside(first, None, |alive| {
            let own = self.0[0].namespace.as_fd();
            setns(own, CloneFlags::CLONE_NEWNS).doing(|| "joining the container's mount namespace")?;
            furniture.mount_lines(records(), &mut BTreeMap::new(), BTreeMap::new(), alive).map(|()| Vec::new())
        })?;
        Ok(())
    }

    /// By its number; the check of an image found that there is one.
    fn one(&self, number: u32) -> &One {
        usize::try_from(number).ok().and_then(|number| self.0.get(number)).unwrap_or(&self.0[0])
    }

    /// The calls by which a process joins a namespace, whose root directory becomes its own. No other task shares its directories. `link`
    /// is its pidfd of the caller.
    pub fn join(&self, batch: &mut Batch, number: u32, link: u32) {
        let source = self.one(number).namespace.as_raw_fd();
        let pulled = batch.call(libc::SYS_pidfd_getfd, &[link.into(), source.into(), 0u32.into()], "pidfd_getfd");
        batch.call(libc::SYS_setns, &[pulled.into(), CloneFlags::CLONE_NEWNS.bits().into()], "setns");
        batch.call(libc::SYS_close, &[pulled.into()], "close");
    }

    /// A copy of a mount that is attached nowhere.
    pub(super) fn copy(&self, number: u32, path: &Bytes) -> std::io::Result<OwnedFd> {
        let One { namespace, root } = self.one(number);
        detached(root, namespace, path)
    }

    /// Where the paths of an image are looked up.
    #[must_use]
    pub fn roots(&self, image: &Image) -> Roots<'_> {
        let mut roots = Roots::only(self.0[0].root.as_fd());
        for (content, processes) in image.mount_namespaces() {
            let root = self.one(content.number).root.as_fd();
            roots.processes.extend(processes.iter().map(|&pid| (pid, root)));
            roots.files.extend(content.files.iter().map(|&file| (file, root)));
        }
        roots
    }
}

/// The root directories below which the paths of an image are looked up.
#[derive(Clone, Debug)]
pub struct Roots<'a> {
    own: BorrowedFd<'a>,
    /// Where it is another.
    processes: BTreeMap<Pid, BorrowedFd<'a>>,
    files: BTreeMap<FileId, BorrowedFd<'a>>,
}

impl<'a> Roots<'a> {
    /// Of a container without mount namespaces apart.
    #[must_use]
    pub fn only(own: BorrowedFd<'a>) -> Self {
        Roots { own, processes: BTreeMap::new(), files: BTreeMap::new() }
    }

    /// That of the container's own mount namespace.
    #[must_use]
    pub fn own(&self) -> BorrowedFd<'a> {
        self.own
    }

    /// For the directories of a process.
    #[must_use]
    pub fn of_process(&self, process: Pid) -> BorrowedFd<'a> {
        self.processes.get(&process).copied().unwrap_or(self.own)
    }

    /// For an open file.
    #[must_use]
    pub fn of_file(&self, file: FileId) -> BorrowedFd<'a> {
        self.files.get(&file).copied().unwrap_or(self.own)
    }

    /// For a file without a name: that of the open files that are it.
    #[must_use]
    pub fn of_unnamed(&self, image: &Image, number: u32) -> BorrowedFd<'a> {
        let is_it = |file: &&FileId| {
            let file = image.files.get(file).map(|file| &file.kind);
            matches!(file, Some(FileKind::Unnamed(record)) if record.file == number)
        };
        self.files.keys().find(is_it).map_or(self.own, |&file| self.of_file(file))
    }
}

impl Furniture<'_> {
    /// Makes a namespace that begins as a copy of `base`, in the calling process, which is in it afterwards. What a file system shows is
    /// that of the namespaces of the process of which `first` is a pidfd. `owners` has whom the base and it belong to.
    fn mount_apart(
        &self,
        content: &MountNamespace,
        (first, base): (BorrowedFd<'_>, BorrowedFd<'_>),
        pids: &PidNamespaces<'_>,
        [of_base, owner]: [Option<Owner<'_>>; 2],
        alive: &mut dyn FnMut(),
    ) -> Result<(), Failure> {
        join(first, base)?;
        let mounts = |number: u32| self.image.mounts.iter().filter(move |record| record.namespace == number);
        let mut taken = self.made_before(mounts(content.number), base, pids)?;
        let groups = groups(mounts(content.base))?;
        match of_base {
            // What is mounted in a copy for somebody else could not be unmounted.
            Some(of_base) => lowered::enter(&[], of_base).map(drop)?,
            None => unshare(CloneFlags::CLONE_NEWNS).doing(|| "unshare(2)")?,
        }
        if content.private {
            let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).doing(|| "making all of it private")?;
        }
        let Some(owner) = owner else { return self.mount_lines(mounts(content.number), &mut taken, groups, alive) };
        // What belongs to another user namespace than what it is a copy of cannot be unmounted any more.
        let is_gone = |record: &&Mount| matches!(record.kind, MountKind::Unmounted);
        let (gone, left): (Vec<_>, Vec<_>) = mounts(content.number).partition(is_gone);
        self.mount_lines(gone.into_iter(), &mut taken, BTreeMap::new(), alive)?;
        taken.extend(lowered::enter(&left, owner)?);
        self.mount_lines(left.into_iter(), &mut taken, groups, alive)
    }

    /// Makes the container's own namespace, where it belongs to a user namespace inside: a copy of `base`, in which nothing was mounted for programs
    /// yet. The calling process is in it afterwards; `first` as above.
    fn mount_lowered(
        &self,
        (first, base): (BorrowedFd<'_>, BorrowedFd<'_>),
        pids: &PidNamespaces<'_>,
        owner: Owner<'_>,
        alive: &mut dyn FnMut(),
    ) -> Result<(), Failure> {
        join(first, base)?;
        let lines: Vec<&Mount> = self.image.mounts.iter().filter(|record| record.namespace == 0).collect();
        let mut taken = self.made_before(lines.iter().copied(), base, pids)?;
        taken.extend(lowered::enter(&lines, owner)?);
        self.mount_lines(lines.into_iter(), &mut taken, BTreeMap::new(), alive)
    }

    /// Makes those mounts of the container's own namespace that show a pid namespace below its own, and what hangs on them, in the calling
    /// process, which is in it afterwards.
    fn mount_late(
        &self,
        late: &BTreeSet<u32>,
        own: BorrowedFd<'_>,
        pids: &PidNamespaces<'_>,
        alive: &mut dyn FnMut(),
    ) -> Result<(), Failure> {
        setns(own, CloneFlags::CLONE_NEWNS).doing(|| "joining the container's mount namespace")?;
        let mounts = self.image.mounts.iter().filter(|record| record.namespace == 0);
        let (late, early): (Vec<_>, Vec<_>) = mounts.partition(|record| late.contains(&record.number));
        let mut taken = self.made_before(late.iter().copied(), own, pids)?;
        let groups = groups(early.into_iter())?;
        self.mount_lines(late.into_iter(), &mut taken, groups, alive)
    }

    /// What some lines are of before they are attached: what is taken from the namespace `base`, which the caller is in, and what shows
    /// other namespaces than the caller's.
    fn made_before<'r>(
        &self,
        records: impl Iterator<Item = &'r Mount>,
        base: BorrowedFd<'_>,
        pids: &PidNamespaces<'_>,
    ) -> Result<BTreeMap<u32, OwnedFd>, Failure> {
        let mut taken = BTreeMap::new();
        for record in records {
            let made = match &record.kind {
                // From the top, since the path begins with a slash.
                MountKind::Taken(bind) => {
                    crfs_sys::mount::detached_copy(base, path(&bind.source)).doing(|| format!("taking {}", bind.source))
                }
                MountKind::HostPath(_) => self.of_the_host(record.number).doing(|| "duplicating a descriptor"),
                MountKind::Fresh(FreshMount { options: FileSystem { source, options, .. }, .. }) => {
                    let Some(shown) = pids.shown_by(record.number) else { continue };
                    crfs_sys::mount::new(c"proc", &source.0, &options.0, Some(shown.as_fd()))
                        .doing(|| "mounting a /proc that shows another pid namespace, which Linux 6.17 or later can")
                }
                _ => continue,
            };
            taken.insert(record.number, made.map_err(|failure| super::restore::incompatible(failure, record))?);
        }
        Ok(taken)
    }
}

/// Has the calling process join a mount namespace, and those others of a process, given its pidfd, that file systems show.
fn join(first: BorrowedFd<'_>, mounts: BorrowedFd<'_>) -> Result<(), Failure> {
    let others =
        CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWCGROUP;
    setns(first, others).doing(|| "joining the container's namespaces")?;
    setns(mounts, CloneFlags::CLONE_NEWNS).doing(|| "joining the namespace that it is a copy of")
}

/// A mount of each group of peers that lines have.
fn groups<'r>(records: impl Iterator<Item = &'r Mount>) -> Result<BTreeMap<u32, File>, Failure> {
    let mut groups = BTreeMap::new();
    for record in records {
        if let Some(group) = record.propagation.peers.filter(|group| !groups.contains_key(group)) {
            groups.insert(group, super::restore::place(record)?);
        }
    }
    Ok(groups)
}

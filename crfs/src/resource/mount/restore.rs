//! From the records to mounts, in the first process of a new container.

use super::apart::Made;
use super::fill::{fill, set_time};
use crate::copy::{Content, Contents};
use crate::failure::{Doing, Failure, Kind};
use crate::launch::overlay;
use image_format::layout::{self, MOUNTS};
use image_format::mounts::{FileSystem, HostPath, Master, Mount, MountFlags, MountKind, Node};
use image_format::{Bytes, Image};
use nix::errno::Errno;
use nix::fcntl;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const NONE: Option<&str> = None;

/// What is to be mounted, with the contents, and what is bound from the host: opened while their paths still lead there.
#[derive(Debug)]
pub struct Furniture<'a> {
    pub(super) image: &'a Image,
    /// The contents of each tmpfs that is still to be filled, by number of the line.
    data: RefCell<BTreeMap<u32, Content<'a>>>,
    /// By number of the line.
    host: BTreeMap<u32, OwnedFd>,
}

impl<'a> Furniture<'a> {
    /// That of an image.
    ///
    /// # Errors
    /// When the contents cannot be opened; [`Kind::Incompatible`] for what the host does not have.
    pub fn open(image: &'a Image, contents: &Contents<'a>) -> Result<Self, Failure> {
        let mut data = BTreeMap::new();
        let mut host = BTreeMap::new();
        for record in &image.mounts {
            match &record.kind {
                MountKind::Tmpfs(_) => {
                    data.insert(record.number, contents.open(&layout::mount_data(record.number))?);
                }
                MountKind::HostPath(HostPath { source }) => {
                    let taken = crfs_sys::mount::detached_copy(fcntl::AT_FDCWD, self::path(source));
                    let taken = taken.doing(|| format!("taking {source} of the host, which may be edited"));
                    host.insert(record.number, taken.map_err(|failure| incompatible(failure, record))?);
                }
                _ => {}
            }
        }
        Ok(Furniture { image, data: data.into(), host })
    }

    /// Mounts everything, in a mount namespace of the caller's own in which nothing is opened yet. `alive` is told now and then that
    /// it goes on. The caller's working directory is another afterwards.
    ///
    /// # Errors
    /// [`Kind::Incompatible`] with the line of `mounts` or `mounts.N` at which this host refuses.
    pub fn mount_all(&self, alive: &mut dyn FnMut()) -> Result<(), Failure> {
        let late = self.image.late_mounts();
        let is_now =
            |record: &&Mount| record.namespace == 0 && !late.contains(&record.number) && !is_of_a_terminal(record);
        // Where they belong to a user namespace inside, they are made there.
        let is_lowered = self.image.user_of_mounts(0).is_some();
        let own = self.image.mounts.iter().filter(|record| is_now(record) && !is_lowered);
        let mut taken = BTreeMap::new();
        for &number in self.host.keys() {
            taken.insert(number, self.of_the_host(number).doing(|| format!("{MOUNTS}: duplicating a descriptor"))?);
        }
        self.mount_lines(own, &mut taken, BTreeMap::new(), alive)
    }

    /// What a line binds from the host.
    pub(super) fn of_the_host(&self, number: u32) -> std::io::Result<OwnedFd> {
        self.host.get(&number).ok_or(Errno::EBADF)?.try_clone()
    }

    /// Carries out lines of `mounts`. `taken` has what is made already, or taken from another namespace, `groups` a mount of each group of peers that is there.
    pub(super) fn mount_lines<'r>(
        &self,
        records: impl Iterator<Item = &'r Mount>,
        taken: &mut BTreeMap<u32, OwnedFd>,
        groups: BTreeMap<u32, File>,
        alive: &mut dyn FnMut(),
    ) -> Result<(), Failure> {
        let mut made = Vec::new();
        for record in records {
            let done = match record.kind {
                MountKind::Unmounted => unmount(record),
                // This host need not have what another had.
                MountKind::Host | MountKind::Inherited if !is_mounted(record) => Ok(()),
                _ => {
                    made.push(record);
                    self.make(record, taken.remove(&record.number), alive)
                }
            };
            done.map_err(|failure| incompatible(failure, record))?;
        }
        relate(made, groups)
    }

    fn make(&self, record: &Mount, taken: Option<OwnedFd>, alive: &mut dyn FnMut()) -> Result<(), Failure> {
        let path = path(&record.path);
        match &record.kind {
            MountKind::Host | MountKind::Inherited | MountKind::Unmounted => {}
            MountKind::Taken(_) | MountKind::HostPath(_) => {
                let taken = taken.ok_or(Errno::EBADF).doing(|| "taking it")?;
                crfs_sys::mount::attach(taken.as_fd(), path).doing(|| "attaching it")?;
            }
            MountKind::Bind(bind) => {
                let source = self::path(&bind.source);
                mount(Some(source), path, NONE, MsFlags::MS_BIND, NONE)
                    .doing(|| format!("binding {}", source.display()))?;
            }
            MountKind::Tmpfs(system) => {
                match taken {
                    Some(made) => crfs_sys::mount::attach(made.as_fd(), path).doing(|| "attaching it")?,
                    None => new_file_system("tmpfs", system, path)?,
                }
                self.fill(record, alive)?;
                protect(system, path)?;
            }
            // It is the root since before.
            MountKind::Fresh(_) if record.path.0 == b"/" => {}
            MountKind::Fresh(fresh) => {
                match taken {
                    Some(made) => crfs_sys::mount::attach(made.as_fd(), path).doing(|| "attaching it")?,
                    None => new_file_system(&fresh.file_system, &fresh.options, path)?,
                }
                protect(&fresh.options, path)?;
            }
        }
        // What is bound from a mount of the host's goes on to receive from there. A later one may hide it.
        let relation = match record.propagation.master {
            Some(Master::Host) => MsFlags::MS_SLAVE,
            _ => MsFlags::MS_PRIVATE,
        };
        mount(NONE, path, NONE, relation, NONE).doing(|| "cutting it off from others")?;
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | attributes(record.flags);
        mount(NONE, path, NONE, flags, NONE).doing(|| "setting its flags")
    }

    fn fill(&self, record: &Mount, alive: &mut dyn FnMut()) -> Result<(), Failure> {
        let tree = self.image.trees.get(&record.number).map_or(&[][..], Vec::as_slice);
        let top: OwnedFd = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(path(&record.path))
            .doing(|| "opening it")?
            .into();
        let name = || format!("{}: opening", layout::mount_data(record.number));
        let data = self.data.borrow_mut().remove(&record.number);
        let mut data = data.ok_or(Errno::EBADF).doing(name)?;
        fill(top.as_fd(), tree, &mut data, alive).or_else(|(index, error)| {
            let path = tree.get(index).map(|entry| entry.path.escaped()).unwrap_or_default();
            Err(error).doing(|| format!("{}: line {}: {path}", layout::mount_tree(record.number), index + 1))
        })
    }
}

/// Sets the times of directories, FIFOs and sockets again, which change while sockets are bound, FIFOs filled and files without a name made.
///
/// # Errors
/// When a mount is gone, or a time cannot be set.
pub fn settle_times(image: &Image, namespaces: &Made) -> Result<(), Failure> {
    for record in image.mounts.iter().filter(|record| matches!(record.kind, MountKind::Tmpfs(_))) {
        let tree = image.trees.get(&record.number).map_or(&[][..], Vec::as_slice);
        let object = || layout::mount_tree(record.number);
        let top = namespaces.copy(record.namespace, &record.path).doing(object)?;
        let base = PathBuf::from(format!("/proc/self/fd/{}", top.as_raw_fd()));
        for entry in tree.iter().filter(|entry| matches!(entry.node, Node::Directory | Node::Fifo | Node::Socket)) {
            match set_time(&base.join(self::path(&entry.path)), entry.modified) {
                // Nothing has been made in what is read-only.
                Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => break,
                set => set.doing(object)?,
            }
        }
    }
    Ok(())
}

/// Whether it shows a terminal, as /dev/console of containers that others made: it is bound when terminals are there.
pub(in crate::resource) fn is_of_a_terminal(record: &Mount) -> bool {
    let MountKind::Bind(bind) = &record.kind else { return false };
    let number = bind.source.0.strip_prefix(b"/dev/pts/".as_slice()).unwrap_or_default();
    !number.is_empty() && number.iter().all(u8::is_ascii_digit)
}

/// Unmounts what a copy has, if this host has it.
fn unmount(record: &Mount) -> Result<(), Failure> {
    match umount2(path(&record.path), MntFlags::UMOUNT_NOFOLLOW) {
        Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR) => Ok(()),
        done => done.doing(|| "unmounting it"),
    }
}

/// The mount at the path of a record.
pub(super) fn place(record: &Mount) -> Result<File, Failure> {
    let opened = File::options().read(true).custom_flags(libc::O_PATH).open(path(&record.path));
    opened.doing(|| "opening it").map_err(|failure| incompatible(failure, record))
}

/// Whether something is mounted on the path of a record: MS_BIND changes what is, and knows no other path.
fn is_mounted(record: &Mount) -> bool {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | attributes(record.flags);
    !matches!(mount(NONE, path(&record.path), NONE, flags, NONE), Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR))
}

pub(super) fn path(path: &Bytes) -> &Path {
    Path::new(OsStr::from_bytes(&path.0))
}

pub(super) fn incompatible(failure: Failure, record: &Mount) -> Failure {
    let kind = if failure.kind == Kind::BadImage { Kind::BadImage } else { Kind::Incompatible };
    Failure { kind, ..failure.within(format!("{MOUNTS}: line {}: {}", record.number, record.path)) }
}

fn new_file_system(kind: &str, system: &FileSystem, path: &Path) -> Result<(), Failure> {
    if kind == "overlay" {
        return overlay::mount_new(&FileSystem { read_only: false, ..system.clone() }, path)
            .doing(|| "mounting overlay");
    }
    let (source, options) = (self::path(&system.source), self::path(&system.options));
    mount(Some(source), path, Some(kind), MsFlags::empty(), Some(options)).doing(|| format!("mounting {kind}"))
}

/// Makes a file system read-only that was, now that it holds everything.
fn protect(system: &FileSystem, path: &Path) -> Result<(), Failure> {
    if !system.read_only {
        return Ok(());
    }
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(NONE, path, NONE, flags, NONE).doing(|| "making its file system read-only")
}

/// As mount(2) takes them: without a word about access times it would leave them or choose relatime.
fn attributes(flags: MountFlags) -> MsFlags {
    let bits = MsFlags::from_bits_retain(flags.0);
    if bits.intersects(MsFlags::MS_NOATIME | MsFlags::MS_RELATIME) { bits } else { bits | MsFlags::MS_STRICTATIME }
}

/// Gives every mount its peers and its master. A group begins with the first of its mounts, if it is not there yet; one that is a slave comes
/// after its master.
fn relate(mut left: Vec<&Mount>, mut groups: BTreeMap<u32, File>) -> Result<(), Failure> {
    while !left.is_empty() {
        let before = left.len();
        let mut waiting = Vec::new();
        for record in left {
            let master = match record.propagation.master {
                Some(Master::Peers(group)) => match groups.get(&group) {
                    None => {
                        waiting.push(record);
                        continue;
                    }
                    found => found,
                },
                _ => None,
            };
            let peers = record.propagation.peers;
            let first = peers.and_then(|group| groups.get(&group));
            share(record, first, master).map_err(|failure| incompatible(failure, record))?;
            if let Some(group) = peers.filter(|group| !groups.contains_key(group)) {
                groups.insert(group, place(record)?);
            }
        }
        left = waiting;
        if left.len() == before {
            let reason = format!("{MOUNTS}: line {}: propagation: masters in a circle", left[0].number);
            return Err(Failure::new(Kind::BadImage, reason));
        }
    }
    Ok(())
}

/// `first` is a mount of its group that stands, `master` one of the group that it receives from.
fn share(record: &Mount, first: Option<&File>, master: Option<&File>) -> Result<(), Failure> {
    let path = path(&record.path);
    let change = |flags: MsFlags| mount(NONE, path, NONE, flags, NONE).doing(|| "setting its propagation");
    let join = |from: &File| crfs_sys::mount::join_peers(from.as_fd(), path).doing(|| "making it a peer of another");
    let propagation = record.propagation;
    if first.is_some() || master.is_some() {
        change(MsFlags::MS_PRIVATE)?;
    }
    if let Some(first) = first {
        return join(first);
    }
    if let Some(master) = master {
        join(master)?;
        change(MsFlags::MS_SLAVE)?;
    }
    if propagation.peers.is_some() {
        change(MsFlags::MS_SHARED)?;
    }
    if propagation.unbindable {
        change(MsFlags::MS_UNBINDABLE)?;
    }
    Ok(())
}

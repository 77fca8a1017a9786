//! Which mounts are the container's own, and how each can be made again.

use super::super::Findings;
use super::super::container::Place;
use super::super::proc::Proc;
use super::cgroup_mounts;
use super::given::Given;
use crate::failure::{Doing, Failure};
use crate::mountinfo::overlay::{self, Layers};
use crate::mountinfo::{Mount, mounts, paths_of};
use crate::registry::Record;
use image_format::Bytes;
use image_format::mounts::{BindMount, FileSystem, FreshMount, HostPath, MountFlags, MountKind};
use std::fs::{self, File, Metadata};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Options of tmpfs that are given again.
const TMPFS: [&str; 9] = ["size", "nr_inodes", "mode", "uid", "gid", "huge", "noswap", "inode32", "inode64"];
/// Options of the file systems of [`FreshMount::TYPES`] that are given again.
const FRESH: [(&str, &[&str]); 5] = [
    ("proc", &["hidepid", "gid", "subset"]),
    ("sysfs", &[]),
    ("devpts", &["gid", "uid", "mode", "ptmxmode", "max"]),
    ("mqueue", &[]),
    (
        "overlay",
        &[
            "lowerdir",
            "upperdir",
            "workdir",
            "redirect_dir",
            "index",
            "uuid",
            "nfs_export",
            "xino",
            "metacopy",
            "userxattr",
        ],
    ),
];
/// How /proc/PID/mountinfo writes the attributes of a mount.
const ATTRIBUTES: [(&str, MountFlags); 8] = [
    ("ro", MountFlags::MS_RDONLY),
    ("nosuid", MountFlags::MS_NOSUID),
    ("nodev", MountFlags::MS_NODEV),
    ("noexec", MountFlags::MS_NOEXEC),
    ("nosymfollow", MountFlags::MS_NOSYMFOLLOW),
    ("noatime", MountFlags::MS_NOATIME),
    ("nodiratime", MountFlags::MS_NODIRATIME),
    ("relatime", MountFlags::MS_RELATIME),
];

/// A mount to make again.
#[derive(Clone, Debug)]
pub(super) struct Own {
    pub(super) mount: Mount,
    pub(super) kind: MountKind,
    pub(super) flags: MountFlags,
}

/// Finds mounts that cannot be made again.
///
/// # Errors
/// When the first process is gone.
pub(in crate::resource) fn survey(
    record: &Record,
    init: i32,
    proc: &mut Proc,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let prefix = proc.link(format_args!("{init}/root"))?;
    if record.root.is_none() && prefix != b"/" {
        findings.block(
            "manifest",
            format!("the container's first process has {} for its root directory (chroot)", Bytes(prefix)),
            "Start it with `crctl run --root`",
        );
    } else if record.root.is_none() && !is_root_of_the_host(init) {
        let inside = mounts(proc.bytes(format_args!("{init}/mountinfo"))?);
        let top = inside.iter().rfind(|mount| mount.path == Path::new("/"));
        let kind = top.map_or("directory", |mount| &mount.kind);
        findings.block(
            "manifest",
            format!("the container's root directory, of type {kind}, is none that a path of this host leads to"),
            "Start it in a directory of the host, or with `crctl run --root`",
        );
        // Nothing in it is what the host has there, and to say so of each would hide why.
        return Ok(());
    }
    find(record, init, proc, findings).map(drop)
}

/// Whoever made an overlay for a container's root unmounts it with the container, so it is made again by its options, before all else.
fn root_overlay(found: &mut Vec<Own>, record: &Record, inside: &[Mount]) {
    let is_root = |mount: &&Mount| mount.path == Path::new("/");
    let top = inside.iter().rfind(is_root).filter(|top| top.kind == "overlay" && top.root == Path::new("/"));
    let Some(top) = top.filter(|_| record.root.is_some()) else { return };
    let near: Vec<&Path> = record.root.iter().map(PathBuf::as_path).collect();
    let shown = Mount { options: overlay::normal(top, &near, &|path| path.exists()), ..top.clone() };
    if let Some((options, flags)) = file_system(&shown, FRESH[4].1).zip(flags(top)) {
        found.retain(|own| own.mount.id != top.id);
        let kind = MountKind::Fresh(FreshMount { file_system: top.kind.clone(), options });
        found.insert(0, Own { mount: top.clone(), kind, flags });
    }
}

fn is_root_of_the_host(init: i32) -> bool {
    let look = |path: &str| fs::metadata(path).map(|root| (root.dev(), root.ino())).ok();
    look(&format!("/proc/{init}/root/")) == look("/")
}

/// The mounts that a fresh container would not have, and those that it would have otherwise, in the order in which they can be made;
/// obstacles for those that cannot.
///
/// # Errors
/// When the first process is gone.
pub(super) fn find(record: &Record, init: i32, proc: &mut Proc, findings: &mut Findings) -> Result<Vec<Own>, Failure> {
    let host = mounts(proc.bytes(format_args!("self/mountinfo"))?);
    let mut inside = mounts(proc.bytes(format_args!("{init}/mountinfo"))?);
    // A container that was added may have peers among the host's mounts. A restored one receives from there.
    for mount in
        inside.iter_mut().filter(|mount| mount.peers.is_some_and(|peers| host.iter().any(|m| m.peers == Some(peers))))
    {
        mount.master = mount.peers.take();
    }
    let place = Place::of(record, init, proc)?;
    let given = Given::of(record, &host, &inside);
    let is_copy = owner_of_mounts(init)? != own_user()?;
    let foreign = given.foreign(record, &place, is_copy);
    let mut found = given.changed(&foreign, &place);
    let cgroups = cgroup_mounts::top(record, init, proc)?;
    let sources = Sources { own_cgroup: cgroups.as_deref(), host: &host };
    let mut placed: Vec<&Mount> =
        inside.iter().filter(|mount| !mount.is_crfs() && !foreign.iter().any(|own| own.id == mount.id)).collect();
    let mut left: Vec<&Mount> = foreign;
    if is_copy {
        // A restore makes new file systems first, and numbers them so.
        left.sort_by(|one, other| one.path.cmp(&other.path));
    }
    if record.root.is_some() {
        // A restore takes them before it makes any, so that the next checkpoint would find them first.
        left.sort_by_cached_key(|mount| host_path(mount, &place, &host).is_none());
    }
    // A mount that was moved has a lower number than what it now hangs on.
    while !left.is_empty() {
        let before = left.len();
        left.retain(|mount| {
            let stands = placed.iter().any(|below| below.id == mount.parent);
            let kind = stands.then(|| kind(mount, &placed, &place, &sources)).flatten();
            let Some((kind, flags)) = kind.zip(flags(mount)) else { return true };
            found.push(Own { mount: (*mount).clone(), kind, flags });
            placed.push(mount);
            false
        });
        if left.len() == before {
            break;
        }
    }
    root_overlay(&mut found, record, &inside);
    for mount in left {
        refuse(mount, "inside the container, which a restore would not do", findings);
    }
    found.retain(|own| {
        let mount = &own.mount;
        let hidden = own.kind != MountKind::Host && mount_at(&place, &mount.path).is_some_and(|id| id != mount.id);
        let is_read_in_place = mount.unbindable && matches!(own.kind, MountKind::Tmpfs(_));
        let covered = is_read_in_place && inside.iter().any(|other| other.parent == mount.id);
        if hidden {
            refuse(mount, "inside the container and hidden by another mount", findings);
        } else if covered {
            refuse(mount, "inside the container as unbindable, and another mount on it hides what it holds", findings);
        }
        !hidden && !covered
    });
    Ok(found)
}

/// The user namespace that the mount namespace of a process belongs to, by its inode.
///
/// # Errors
/// When the process is gone.
pub(super) fn owner_of_mounts(host: i32) -> Result<u64, Failure> {
    let path = format!("/proc/{host}/ns/mnt");
    let namespace = File::open(&path).doing(|| format!("{path}: opening"))?;
    let owner = crfs_sys::namespaces::owner(namespace.as_fd()).map(File::from);
    Ok(owner.doing(|| "asking whose a mount namespace is")?.metadata().doing(|| "looking at it")?.ino())
}

fn own_user() -> Result<u64, Failure> {
    Ok(fs::metadata("/proc/self/ns/user").doing(|| "/proc/self/ns/user: looking at it")?.ino())
}

fn refuse(mount: &Mount, reason: &str, findings: &mut Findings) {
    let path = Bytes(mount.path.as_os_str().as_bytes().to_vec());
    findings.block(
        "manifest",
        format!("{} is mounted on {path} {reason}", mount.kind),
        "Unmount it, or mount it on the host before `crctl run`",
    );
}

/// What mounts can be made of beside those that stand already.
pub(super) struct Sources<'a> {
    /// Where the container's cgroup is in its hierarchy, if it has a namespace that ends there.
    pub(super) own_cgroup: Option<&'a Path>,
    /// The mounts of the host, for a mount that may be bound from there.
    pub(super) host: &'a [Mount],
}

/// How a mount can be made again when those in `placed` stand; None where it cannot.
pub(super) fn kind(mount: &Mount, placed: &[&Mount], place: &Place, sources: &Sources<'_>) -> Option<MountKind> {
    if let Some(own) = sources.own_cgroup.filter(|own| mount.kind == "cgroup2" && mount.root.starts_with(own)) {
        return cgroup_mounts::kind(mount, placed, place, own);
    }
    if let Some(source) = placed.iter().find_map(|from| source((mount, place), (from, place))) {
        return Some(MountKind::Bind(BindMount { source }));
    }
    let (_, options) = FRESH.iter().find(|(kind, _)| *kind == mount.kind).copied().unzip();
    // The others are the same file system whoever mounts them.
    let is_elsewhere = options.is_none() || mount.root != Path::new("/") || mount.kind == "overlay";
    if let Some(source) = host_path(mount, place, sources.host).filter(|_| is_elsewhere) {
        return Some(MountKind::HostPath(HostPath { source }));
    }
    if mount.root != Path::new("/") {
        return None;
    }
    let is_new = !placed.iter().any(|other| other.device == mount.device);
    if mount.kind == "tmpfs" && is_new {
        return Some(MountKind::Tmpfs(file_system(mount, &TMPFS)?));
    }
    let mut shown = mount.clone();
    if mount.kind == "overlay" {
        // Another overlay would be another file system.
        is_new.then_some(())?;
        let exists = |path: &Path| look(place, path).is_some();
        shown.options = overlay::normal(mount, &[&mount.path], &exists);
    }
    Some(MountKind::Fresh(FreshMount { file_system: mount.kind.clone(), options: file_system(&shown, options?)? }))
}

/// The path at which the host shows what is mounted.
fn host_path(mount: &Mount, place: &Place, host: &[Mount]) -> Option<Bytes> {
    // Runtimes mount the memory that a container shares on the host first, and it is the container's all the same.
    let is_shm = mount.kind == "tmpfs" && mount.path == Path::new("/dev/shm") && mount.root == Path::new("/");
    let shown = look(place, &mount.path)?.metadata().ok()?;
    if mount.kind.starts_with("cgroup") {
        return cgroup_mounts::host_path(mount, host);
    }
    let mut paths = paths_of(host, mount).filter(|path| !is_shm || path == Path::new("/dev/shm"));
    let same = |path: &PathBuf| {
        fs::symlink_metadata(path).is_ok_and(|there| (there.dev(), there.ino()) == (shown.dev(), shown.ino()))
    };
    Some(Bytes(paths.find(same)?.as_os_str().as_bytes().to_vec()))
}

/// The path at which `from` shows what is mounted, if it does; each with the place that shows it.
pub(super) fn source((mount, place): (&Mount, &Place), (from, there): (&Mount, &Place)) -> Option<Bytes> {
    if from.device != mount.device {
        return None;
    }
    let below = mount.root.strip_prefix(&from.root).ok()?;
    // Without the slash that joining nothing would leave: a file has none.
    let path = if below.as_os_str().is_empty() { from.path.clone() } else { from.path.join(below) };
    let source = Bytes(path.as_os_str().as_bytes().to_vec());
    let target = Bytes(mount.path.as_os_str().as_bytes().to_vec());
    let look = |place: &Place, path: &Bytes| fs::symlink_metadata(place.reach(path)).ok();
    let same = |a: &Metadata, b: &Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    look(there, &source).zip(look(place, &target)).is_some_and(|(a, b)| same(&a, &b)).then_some(source)
}

/// What mount(2) gets; None where it has an option that is not among these.
fn file_system(mount: &Mount, known: &[&str]) -> Option<FileSystem> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for option in mount.options.iter().filter(|option| !matches!(option.as_slice(), b"" | b"ro" | b"rw")) {
        let name = option.split(|&byte| byte == b'=').next().unwrap_or_default();
        let is_known = known.iter().any(|known| known.as_bytes() == name);
        // A directory below one that nobody knows.
        let relative = Layers::of(std::slice::from_ref(option)).all().any(|path| path.is_relative());
        if !is_known || relative || option.contains(&b',') {
            return None;
        }
        kept.push(option);
    }
    let options = kept.join(&b','.to_owned());
    (options.len() <= FreshMount::longest_options(&mount.kind)).then_some(())?;
    Some(FileSystem {
        source: Bytes(mount.source.clone()),
        options: Bytes(options),
        read_only: mount.options.iter().any(|option| option == b"ro"),
    })
}

/// The attributes of a mount; None where it has one that is not known here.
pub(super) fn flags(mount: &Mount) -> Option<MountFlags> {
    let bit = |word: &String| match word.as_str() {
        "rw" => Some(0),
        word => ATTRIBUTES.iter().find(|(known, _)| *known == word).map(|(_, flag)| flag.0),
    };
    mount.attributes.iter().map(bit).try_fold(0, |bits, bit| Some(bits | bit?)).map(MountFlags)
}

/// The number of the mount that a path leads to, which is the uppermost there.
pub(super) fn mount_at(place: &Place, path: &Path) -> Option<u32> {
    mount_of(&look(place, path)?)
}

pub(super) fn look(place: &Place, path: &Path) -> Option<File> {
    let path = place.reach(&Bytes(path.as_os_str().as_bytes().to_vec()));
    fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path).ok()
}

/// The number of the mount that something lies on.
pub(crate) fn mount_of(opened: &File) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", opened.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_are_not_known_or_relative_are_not_given_again() {
        let options = |text: &str, known: &[&str]| {
            let line = format!("90 27 0:70 / /mnt rw - overlay o\\040v {text}\n");
            file_system(&mounts(line.as_bytes())[0], known).map(|system| (system.options, system.read_only))
        };
        assert_eq!(options("rw,size=4k,mode=755", &TMPFS), Some((Bytes::from("size=4k,mode=755"), false)));
        assert_eq!(options("ro", &TMPFS), Some((Bytes::from(""), true)));
        assert_eq!(options("rw,usrquota", &TMPFS), None);
        let overlay = FRESH[4].1;
        assert!(options("rw,lowerdir=/a:/b,upperdir=/u,workdir=/w,redirect_dir=on", overlay).is_some());
        assert_eq!(options("rw,lowerdir=a,upperdir=/u,workdir=/w", overlay), None);
        assert_eq!(options("rw,lowerdir=/a\\054b,upperdir=/u,workdir=/w", overlay), None);
    }

    #[test]
    fn attributes_are_flags() {
        let flags = |text: &str| flags(&mounts(format!("90 27 0:70 / /mnt {text} - tmpfs t rw\n").as_bytes())[0]);
        assert_eq!(flags("ro,nosuid,relatime"), Some(MountFlags(1 | 2 | 0x20_0000)));
        assert_eq!(flags("rw,idmapped"), None);
    }
}

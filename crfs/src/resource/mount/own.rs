//! Which mounts are the container's own, and how each can be made again.

use super::super::Findings;
use super::super::container::Place;
use super::super::proc::Proc;
use crate::failure::Failure;
use crate::mountinfo::{Mount, mounts};
use crate::registry::Record;
use image_format::Bytes;
use image_format::manifest::NamespaceKind;
use image_format::mounts::{BindMount, FileSystem, FreshMount, MountFlags, MountKind};
use std::collections::BTreeSet;
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
    }
    find(record, init, proc, findings).map(drop)
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
    let fresh = fresh(&host, &inside, !record.shares(NamespaceKind::Pid));
    let birth = Birth::of(&fresh, &place);
    let mut foreign = foreign(&host, &inside, record.root.as_deref(), &fresh);
    foreign.retain(|mount| !birth.is_left_over(mount, &host, &place));
    let mut found = changed(&host, &inside, &foreign, &place);
    let cgroups = of_cgroups(record, proc)?;
    let mut placed: Vec<&Mount> =
        inside.iter().filter(|mount| !mount.is_crfs() && !foreign.iter().any(|own| own.id == mount.id)).collect();
    let mut left: Vec<&Mount> = foreign;
    // A mount that was moved has a lower number than what it now hangs on.
    while !left.is_empty() {
        let before = left.len();
        left.retain(|mount| {
            let stands = placed.iter().any(|below| below.id == mount.parent);
            let kind = stands.then(|| kind(mount, &placed, &place, cgroups.as_deref())).flatten();
            let Some((kind, flags)) = kind.zip(flags(mount)) else { return true };
            found.push(Own { mount: (*mount).clone(), kind, flags });
            placed.push(mount);
            false
        });
        if left.len() == before {
            break;
        }
    }
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

fn refuse(mount: &Mount, reason: &str, findings: &mut Findings) {
    let path = Bytes(mount.path.as_os_str().as_bytes().to_vec());
    findings.block(
        "manifest",
        format!("{} is mounted on {path} {reason}", mount.kind),
        "Unmount it, or mount it on the host before `crctl run`",
    );
}

/// The /proc and the terminals that every container gets for itself; the former where it has a pid namespace of its own.
fn fresh<'a>(host: &[Mount], own: &'a [Mount], own_pids: bool) -> Vec<&'a Mount> {
    let find = |kind: &str, path: &str| {
        own.iter().find(|mount| {
            let is_it = mount.kind == kind && mount.path == Path::new(path) && mount.root == Path::new("/");
            is_it && !host.iter().any(|there| there.what() == mount.what())
        })
    };
    let proc = if own_pids { find("proc", "/proc") } else { None };
    proc.into_iter().chain(find("devpts", "/dev/pts")).collect()
}

/// The mounts that a new container would not have; `fresh` are what it gets for itself.
fn foreign<'a>(host: &[Mount], own: &'a [Mount], root: Option<&Path>, fresh: &[&Mount]) -> Vec<&'a Mount> {
    let known: BTreeSet<_> = host.iter().map(Mount::what).collect();
    let mut foreign = Vec::new();
    // A server that was mounted after the container began shows in it too; nothing inside depends on it, or its descriptors
    // tell, and a restore detaches it.
    for mount in own.iter().filter(|mount| !mount.is_crfs() && !fresh.iter().any(|fresh| fresh.id == mount.id)) {
        let is_known = match root {
            None => known.contains(&mount.what()),
            Some(root) => {
                // The directory itself; what the host has mounted below it; the host's devices.
                let inside = mount.path.strip_prefix("/").unwrap_or(&mount.path);
                let same = Mount { path: root.join(inside), ..mount.clone() };
                let devices = mount.path.starts_with("/dev");
                mount.path == Path::new("/")
                    || known.contains(&same.what())
                    || (devices && known.contains(&mount.what()))
            }
        };
        if !is_known {
            foreign.push(mount);
        }
    }
    foreign
}

/// The host's mounts whose attributes or peers were changed inside: a fresh container has them as the host has, and receives from
/// those that are shared there.
fn changed(host: &[Mount], inside: &[Mount], foreign: &[&Mount], place: &Place) -> Vec<Own> {
    let of_the_host = inside.iter().filter(|mount| !foreign.iter().any(|own| own.id == mount.id));
    let changed = of_the_host.filter_map(|mount| {
        let there = host.iter().find(|there| there.what() == mount.what());
        let flags = flags(mount)?;
        // What a container has of its own from the beginning (/proc, /dev/pts, another root) stands nowhere on the host.
        let as_there = there.is_none_or(|there| {
            let cut_off = mount.master.is_none() && (there.peers.is_some() || there.master.is_some());
            Some(flags) == self::flags(there) && !cut_off
        });
        let same = as_there && mount.peers.is_none() && !mount.unbindable;
        let is_seen = mount_at(place, &mount.path) == Some(mount.id);
        (!same && is_seen).then(|| Own { mount: mount.clone(), kind: MountKind::Host, flags })
    });
    changed.collect()
}

/// Where the container's cgroup is in its hierarchy, if it has a namespace that ends there.
///
/// # Errors
/// When /proc cannot be read.
pub(super) fn of_cgroups(record: &Record, proc: &mut Proc) -> Result<Option<PathBuf>, Failure> {
    if record.shares(NamespaceKind::Cgroup) {
        return Ok(None);
    }
    Ok(cgroup_root(&mounts(proc.bytes(format_args!("self/mountinfo"))?), &record.cgroup))
}

fn cgroup_root(host: &[Mount], cgroup: &Path) -> Option<PathBuf> {
    host.iter().filter(|mount| mount.kind == "cgroup2").find_map(|mount| {
        let below = cgroup.strip_prefix(&mount.path).ok()?;
        Some(mount.root.join(below))
    })
}

/// How a mount of the container's own cgroup, or of one inside it, is made again: not by the host's mount, since a container of another
/// name has another cgroup. `own` is where it is in the hierarchy.
pub(super) fn cgroups(mount: &Mount, placed: &[&Mount], place: &Place, own: &Path) -> Option<MountKind> {
    if mount.root == own {
        // Its options are those of the one hierarchy, and nobody inside a cgroup namespace can change them.
        let options = FileSystem { source: Bytes(mount.source.clone()), options: "".into(), read_only: false };
        return Some(MountKind::Fresh(FreshMount { file_system: mount.kind.clone(), options }));
    }
    let source = placed
        .iter()
        .filter(|from| from.root.starts_with(own))
        .find_map(|from| self::source((mount, place), (from, place)));
    source.map(|source| MountKind::Bind(BindMount { source }))
}

/// How a mount can be made again when those in `placed` stand; None where it cannot. `own` is where the container's cgroup is in its
/// hierarchy, if it has a namespace that ends there.
pub(super) fn kind(mount: &Mount, placed: &[&Mount], place: &Place, own: Option<&Path>) -> Option<MountKind> {
    if let Some(own) = own.filter(|own| mount.kind == "cgroup2" && mount.root.starts_with(own)) {
        return cgroups(mount, placed, place, own);
    }
    if let Some(source) = placed.iter().find_map(|from| source((mount, place), (from, place))) {
        return Some(MountKind::Bind(BindMount { source }));
    }
    if mount.root != Path::new("/") {
        return None;
    }
    let is_new = !placed.iter().any(|other| other.device == mount.device);
    if mount.kind == "tmpfs" && is_new {
        return Some(MountKind::Tmpfs(file_system(mount, &TMPFS)?));
    }
    let (_, options) = FRESH.iter().find(|(kind, _)| *kind == mount.kind)?;
    // Another overlay would be another file system.
    (mount.kind != "overlay" || is_new).then_some(())?;
    Some(MountKind::Fresh(FreshMount { file_system: mount.kind.clone(), options: file_system(mount, options)? }))
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
        let (name, value) = match option.iter().position(|&byte| byte == b'=') {
            Some(at) => (&option[..at], &option[at + 1..]),
            None => (option.as_slice(), b"".as_slice()),
        };
        let is_known = known.iter().any(|known| known.as_bytes() == name);
        // It was written as the program that mounted it had it, whose directory nobody knows.
        let relative = name.ends_with(b"dir") && !name.starts_with(b"redirect") && !value.starts_with(b"/");
        if !is_known || relative || option.contains(&b',') {
            return None;
        }
        kept.push(option);
    }
    Some(FileSystem {
        source: Bytes(mount.source.clone()),
        options: Bytes(kept.join(&b','.to_owned())),
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

fn look(place: &Place, path: &Path) -> Option<File> {
    let path = place.reach(&Bytes(path.as_os_str().as_bytes().to_vec()));
    fs::OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path).ok()
}

fn mount_of(opened: &File) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", opened.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

/// Tells mounts that a container was born with from those that were made since: their numbers are lower than that of its own terminals.
struct Birth(Option<u64>);

impl Birth {
    fn of(fresh: &[&Mount], place: &Place) -> Self {
        Birth(fresh.iter().filter_map(|mount| Self::number(mount, place)).min())
    }

    /// Nothing inside made it, and the host has it no more.
    fn is_left_over(&self, mount: &Mount, host: &[Mount], place: &Place) -> bool {
        let is_there = host.iter().any(|there| (&there.device, &there.root) == (&mount.device, &mount.root));
        let older = |birth| Self::number(mount, place).is_some_and(|number| number < birth);
        !is_there && self.0.is_some_and(older)
    }

    /// None for one that another hides, and before Linux 6.8.
    fn number(mount: &Mount, place: &Place) -> Option<u64> {
        let opened = look(place, &mount.path).filter(|opened| mount_of(opened) == Some(mount.id))?;
        crfs_sys::mount::unique_id(opened.as_fd()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &[u8] = b"27 1 254:0 / / rw - ext4 /dev/vda rw\n22 27 0:21 / /proc rw - proc proc rw\n\
        24 27 0:6 / /dev rw - devtmpfs devtmpfs rw\n30 27 0:30 / /srv/a\\040b/data rw - tmpfs tmpfs rw\n";

    fn paths(own: &[u8], root: Option<&str>) -> Vec<String> {
        let own = mounts(own);
        let host = mounts(HOST);
        let found = foreign(&host, &own, root.map(Path::new), &fresh(&host, &own, true));
        found.into_iter().map(|mount| mount.path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_copy_of_the_host_with_its_own_proc_is_as_expected() {
        let own = [HOST, b"90 22 0:70 / /proc rw - proc proc rw\n"].concat();
        assert!(paths(&own, None).is_empty());
    }

    #[test]
    fn what_was_mounted_inside_is_found_also_over_an_old_mount() {
        let own = [
            HOST,
            b"90 22 0:70 / /proc rw - proc proc rw\n91 27 0:71 / /dev rw - tmpfs t rw\n",
            b"92 27 0:72 / /proc rw - proc proc rw\n",
        ]
        .concat();
        assert_eq!(paths(&own, None), ["/dev", "/proc"]);
    }

    #[test]
    fn below_another_root_the_host_is_seen_from_there() {
        let own = b"80 1 254:0 /srv/a\\040b / rw - ext4 /dev/vda rw\n81 80 0:30 / /data rw - tmpfs tmpfs rw\n\
            82 80 0:70 / /proc rw - proc proc rw\n83 80 0:6 / /dev rw - devtmpfs devtmpfs rw\n84 80 0:99 / /mnt rw - tmpfs t rw\n";
        assert_eq!(paths(own, Some("/srv/a b")), ["/mnt"]);
    }

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

//! `mounts` and the trees of the container's own tmpfs: what can be mounted and made again.

use super::{Findings, absolute, time};
use crate::image::Image;
use crate::layout::{MOUNTS, NAMESPACES, mount_tree};
use crate::manifest::NamespaceKind;
use crate::mounts::{
    BindMount, FileContent, FileSystem, FreshMount, HostPath, Master, Mount, MountFlags, MountKind, Node, TreeEntry,
};
use crate::types::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// XATTR_NAME_MAX and XATTR_SIZE_MAX (`include/uapi/linux/limits.h`, v6.18).
const XATTR: (usize, usize) = (255, 65536);
/// Options of tmpfs that are carried; `mm/shmem.c`, v6.18.
const TMPFS_OPTIONS: [&str; 9] = ["size", "nr_inodes", "mode", "uid", "gid", "huge", "noswap", "inode32", "inode64"];

pub(super) fn check(image: &Image, findings: &mut Findings) {
    if !image.mounts.is_empty() && image.manifest.container.shares(NamespaceKind::Mnt) {
        findings.add(MOUNTS, "a container that shares the host's mounts has none of its own");
    }
    let apart: BTreeSet<u32> = image.mount_namespaces().map(|(content, _)| content.number).collect();
    let groups: BTreeSet<u32> = image.mounts.iter().filter_map(|mount| mount.propagation.peers).collect();
    for (index, mount) in (0..).zip(&image.mounts) {
        if u64::from(mount.number) != index + 1 {
            findings.line(MOUNTS, index, format!("number {} stands where {} belongs", mount.number, index + 1));
        }
        let known = MountFlags::NAMES.iter().fold(0, |bits, (_, bit)| bits | bit);
        let unknown = mount.flags.0 & !known;
        let flags = (unknown != 0).then(|| format!("flags: {unknown:#x} is not known here"));
        let propagation = propagation(mount, &groups);
        // What the host mounts on / is the one that nothing can be mounted over.
        let may_be_root = match &mount.kind {
            MountKind::Host | MountKind::Inherited => true,
            kind => kind.is_overlay() && mount.namespace == 0 && image.manifest.container.root.is_some(),
        };
        let path = place("path", &mount.path).filter(|_| !(may_be_root && mount.path.0 == b"/"));
        let namespace = namespace(mount, &apart);
        for problem in [namespace, path, self::kind(&mount.kind), flags, propagation].into_iter().flatten() {
            findings.line(MOUNTS, index, problem);
        }
    }
    let with_tree: BTreeSet<u32> = image
        .mounts
        .iter()
        .filter(|mount| matches!(mount.kind, MountKind::Tmpfs(_)))
        .map(|mount| mount.number)
        .collect();
    for &number in with_tree.iter().filter(|number| !image.trees.contains_key(number)) {
        findings.missing(&mount_tree(number));
    }
    for (&number, entries) in &image.trees {
        if !with_tree.contains(&number) {
            findings.add(&mount_tree(number), format!("mount {number} of {MOUNTS} is no tmpfs"));
        }
        tree(&mount_tree(number), entries, findings);
    }
}

/// What is wrong with the namespace of a mount; `apart` are those that there are beside the container's own.
fn namespace(mount: &Mount, apart: &BTreeSet<u32>) -> Option<String> {
    let number = mount.namespace;
    let is_own = match mount.kind {
        MountKind::Host | MountKind::HostPath(_) => Some(true),
        MountKind::Taken(_) | MountKind::Inherited | MountKind::Unmounted => Some(false),
        _ => None,
    };
    if number != 0 && !apart.contains(&number) {
        return Some(format!("namespace {number}: no line of {NAMESPACES} has that number"));
    }
    let wrong = is_own.is_some_and(|is_own| is_own != (number == 0));
    wrong.then(|| format!("namespace {number}: there is no mount of this kind in it"))
}

/// What is wrong with a path that must have no `.` and `..` in it, if anything.
fn place(what: &str, path: &Bytes) -> Option<String> {
    let plain = path.0.len() > 1 && path.0.starts_with(b"/") && is_plain(&path.0[1..]);
    absolute(path)
        .or_else(|| (!plain).then(|| format!("{path:?} is not a path from / without . and ..")))
        .map(|problem| format!("{what}: {problem}"))
}

/// Whether a relative path leads straight down.
pub(super) fn is_plain(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').all(|part| !matches!(part, b"" | b"." | b"..") && part.len() <= 255)
}

fn kind(kind: &MountKind) -> Option<String> {
    match kind {
        MountKind::Tmpfs(system) => {
            let options = system.options.0.split(|&byte| byte == b',').filter(|option| !option.is_empty());
            let name = |option: &'_ [u8]| option.split(|&byte| byte == b'=').next().unwrap_or(option).to_vec();
            let known = |name: &[u8]| TMPFS_OPTIONS.iter().any(|known| known.as_bytes() == name);
            let unknown = options.map(name).find(|name| !known(name));
            self::system(system, FileSystem::LONGEST_OPTIONS)
                .or_else(|| unknown.map(|name| format!("options: {:?} is not known here", Bytes(name))))
        }
        MountKind::Host | MountKind::Inherited | MountKind::Unmounted => None,
        MountKind::Bind(BindMount { source }) | MountKind::Taken(BindMount { source }) => {
            absolute(source).map(|problem| format!("source: {problem}"))
        }
        MountKind::HostPath(HostPath { source }) => place("source", source).filter(|_| source.0 != b"/"),
        MountKind::Fresh(fresh) => {
            let unknown = !FreshMount::TYPES.contains(&fresh.file_system.as_str());
            let unknown = unknown.then(|| format!("file_system: {:?} is none that is mounted here", fresh.file_system));
            unknown.or_else(|| system(&fresh.options, FreshMount::longest_options(&fresh.file_system)))
        }
    }
}

fn system(system: &FileSystem, longest_options: usize) -> Option<String> {
    let source = ("source", &system.source, FileSystem::LONGEST_OPTIONS);
    for (what, text, longest) in [source, ("options", &system.options, longest_options)] {
        if text.0.len() > longest || text.0.contains(&0) {
            return Some(format!("{what}: {text:?} is not at most {longest} bytes without NUL"));
        }
    }
    None
}

fn propagation(mount: &Mount, groups: &BTreeSet<u32>) -> Option<String> {
    let propagation = mount.propagation;
    if propagation.unbindable && (propagation.peers.is_some() || propagation.master.is_some()) {
        return Some("propagation: what cannot be bound has no peers and no master".to_owned());
    }
    match propagation.master {
        Some(Master::Peers(group)) if !groups.contains(&group) || propagation.peers == Some(group) => {
            Some(format!("propagation: master: no other mount has the peers {group}"))
        }
        _ => None,
    }
}

fn tree(file: &str, entries: &[TreeEntry], findings: &mut Findings) {
    let mut seen: BTreeMap<&[u8], &Node> = BTreeMap::new();
    for (index, entry) in (0..).zip(entries) {
        let path = entry.path.0.as_slice();
        let problem = match (index, path) {
            (0, b".") => (entry.node != Node::Directory).then(|| "the top is no directory".to_owned()),
            (0, _) => Some(format!("path: {:?} stands where the top, \".\", belongs", entry.path)),
            _ => below(path, &seen),
        };
        let modified = time(entry.modified).map(|problem| format!("modified: {problem}"));
        let mode = (entry.mode.0 > 0o7777).then(|| format!("mode {}: permissions are twelve bits", entry.mode));
        for problem in [problem, node(&entry.node, &seen), mode, modified, xattrs(entry)].into_iter().flatten() {
            findings.line(file, index, problem);
        }
        // What is wrong with the top is told once.
        let (path, node) = if index == 0 { (b".".as_slice(), &Node::Directory) } else { (path, &entry.node) };
        seen.insert(path, node);
    }
    if entries.is_empty() {
        findings.add(file, "the top, \".\", is missing");
    }
}

fn below(path: &[u8], seen: &BTreeMap<&[u8], &Node>) -> Option<String> {
    let shown = Bytes(path.to_vec());
    if !is_plain(path) || path.contains(&0) {
        return Some(format!("path: {shown:?} does not lead straight down from the top"));
    }
    if seen.contains_key(path) {
        return Some(format!("path: {shown:?} is there already"));
    }
    let above = path.iter().rposition(|&byte| byte == b'/').map_or(b".".as_slice(), |at| &path[..at]);
    let is_directory = seen.get(above) == Some(&&Node::Directory);
    (!is_directory).then(|| format!("path: {shown:?} has no directory before it"))
}

fn node(node: &Node, seen: &BTreeMap<&[u8], &Node>) -> Option<String> {
    match node {
        Node::File(content) => self::content(content),
        Node::Symlink(target) if target.0.is_empty() || target.0.len() > 4095 || target.0.contains(&0) => {
            Some(format!("symlink: {target:?} is not 1 to 4095 bytes without NUL"))
        }
        Node::Link(path) => match seen.get(path.0.as_slice()) {
            None | Some(Node::Directory | Node::Link(_)) => Some(format!("link: {path:?} is no file before it")),
            Some(_) => None,
        },
        Node::CharacterDevice(number) | Node::BlockDevice(number) => {
            // `include/linux/kdev_t.h`: twelve and twenty bits.
            let wide = number.major >= 1 << 12 || number.minor >= 1 << 20;
            wide.then(|| format!("device {}:{}: no device has that number", number.major, number.minor))
        }
        _ => None,
    }
}

fn content(content: &FileContent) -> Option<String> {
    if i64::try_from(content.size).is_err() {
        return Some(format!("size {}: no file has that", content.size));
    }
    let mut end = 0;
    for part in &content.parts {
        let next = part.offset.checked_add(part.length).filter(|&next| next <= content.size);
        match next.filter(|_| part.length > 0 && part.offset >= end) {
            Some(next) => end = next,
            None => return Some(format!("parts: {} bytes at {} do not follow", part.length, part.offset)),
        }
    }
    None
}

fn xattrs(entry: &TreeEntry) -> Option<String> {
    entry.xattrs.iter().find_map(|xattr| {
        let bad = xattr.name.0.is_empty() || xattr.name.0.len() > XATTR.0 || xattr.name.0.contains(&0);
        let large = xattr.value.0.len() > XATTR.1;
        let name = || format!("xattrs: {:?} is not 1 to {} bytes without NUL", xattr.name, XATTR.0);
        let value = || format!("xattrs: {:?} has more than {} bytes", xattr.name, XATTR.1);
        bad.then(name).or_else(|| large.then(value))
    })
}

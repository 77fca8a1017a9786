//! Mount namespaces that belong to a user namespace below the container's own: made there, and filled by who may do more.

use super::restore::incompatible;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::unshared::maker::Maker;
use crate::resource::user_namespace;
use crfs_sys::controls::keep_capabilities;
use image_format::mounts::{FileSystem, Mount, MountKind};
use image_format::user_namespaces::{IdRange, UserNamespace, inside};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid, setresgid, setresuid};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::File;
use std::os::fd::OwnedFd;

/// A user namespace, and what it is.
pub(super) type Owner<'a> = (&'a File, &'a UserNamespace);

/// Makes a copy of the calling process's mount namespace that belongs to a user namespace, and takes the process there, which keeps what it may
/// do; and those new file systems of some lines that belong to it too, attached nowhere. The process makes files as somebody who has an id
/// there from then on.
pub(super) fn enter(lines: &[&Mount], (user, record): Owner<'_>) -> Result<BTreeMap<u32, OwnedFd>, Failure> {
    let own: Vec<(&Mount, &CStr, &FileSystem)> =
        lines.iter().filter_map(|line| Some((*line, system(line)?.0, system(line)?.1))).collect();
    let (uid, gid) = (somebody(&record.uid_map), somebody(&record.gid_map));
    let maker = Maker::born(None, |_| {
        user_namespace::enter(Some(user))?;
        if let (Some(uid), Some(gid)) = (uid, gid) {
            let gid = Gid::from_raw(gid.inside);
            setresgid(gid, gid, gid).doing(|| "taking a group of the user namespace")?;
            let uid = Uid::from_raw(uid.inside);
            setresuid(uid, uid, uid).doing(|| "taking a user of the user namespace")?;
        }
        unshare(CloneFlags::CLONE_NEWNS).doing(|| "unshare(2)")?;
        let make = |&(line, kind, system): &(&Mount, &CStr, &FileSystem)| {
            let made = options(system, record).and_then(|options| {
                crfs_sys::mount::new(kind, &system.source.0, &options, None).doing(|| "making its file system")
            });
            made.map_err(|failure| incompatible(failure, line))
        };
        own.iter().map(make).collect()
    })?;
    let pidfd = maker.pidfd().doing(|| "opening a pidfd")?;
    setns(pidfd, CloneFlags::CLONE_NEWNS).doing(|| "joining a mount namespace")?;
    let mut made = BTreeMap::new();
    for (index, (line, ..)) in own.iter().enumerate() {
        made.insert(line.number, maker.take(index)?);
    }
    keep_capabilities().doing(|| "keeping capabilities")?;
    if let (Some(uid), Some(gid)) = (uid, gid) {
        setfsgid(Gid::from_raw(gid.outside));
        setfsuid(Uid::from_raw(uid.outside));
    }
    Ok(made)
}

/// A new file system that belongs to the user namespace of who mounts it.
fn system(line: &Mount) -> Option<(&'static CStr, &FileSystem)> {
    match &line.kind {
        MountKind::Tmpfs(system) => Some((c"tmpfs", system)),
        MountKind::Fresh(fresh) if fresh.file_system == "devpts" => Some((c"devpts", &fresh.options)),
        _ => None,
    }
}

/// Root, or whoever else has an id.
fn somebody(map: &[IdRange]) -> Option<&IdRange> {
    map.iter().find(|range| range.inside == 0).or(map.first())
}

/// Its options, with the ids that the user namespace has.
fn options(system: &FileSystem, record: &UserNamespace) -> Result<Vec<u8>, Failure> {
    let mut options = Vec::new();
    for option in system.options.0.split(|&byte| byte == b',').filter(|option| !option.is_empty()) {
        let id = |name: &[u8], map: &[IdRange]| {
            let value = option.strip_prefix(name)?;
            let id = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok());
            Some(id.and_then(|id| inside(map, id)).map(|id| [name, id.to_string().as_bytes()].concat()))
        };
        let option = match id(b"uid=", &record.uid_map).or_else(|| id(b"gid=", &record.gid_map)) {
            None => option.to_vec(),
            Some(Some(option)) => option,
            Some(None) => {
                let option = String::from_utf8_lossy(option);
                return Err(Failure::new(Kind::System, format!("{option} is nobody in its user namespace")));
            }
        };
        options.push(option);
    }
    Ok(options.join(&b','))
}

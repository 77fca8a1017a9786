//! The calls that say again who is signalled.

use crate::failure::{Failure, Kind};
use crate::resource::pid_namespace::PidNamespaces;
use crfs_sys::owner::{F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, F_SETOWN_EX, F_SETSIG};
use crfs_tracee::Batch;
use image_format::files::{File, FileKind, OpenFlags, Owner, OwnerKind};
use image_format::layout::file_entry;
use image_format::{FileId, Image, Pid};
use std::collections::BTreeMap;

/// What one process, or a thread with descriptors of its own, says about one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The process.
    pub process: Pid,
    /// Who says it: the process, or its thread.
    pub thread: Pid,
    /// Its descriptor.
    pub fd: u32,
    /// Status flags as F_SETFL takes them, where O_ASYNC is among them.
    pub flags: Option<u64>,
    /// Who is signalled, as the process calls it.
    pub owner: Option<Owner>,
    /// The process has its own users already, and can have no others.
    pub has_entered: bool,
}

/// Everything that is to be said, each by the first process that has the description and knows whom it signals.
///
/// # Errors
/// When no process has it, which the checks of an image refuse.
pub fn settings(image: &Image, namespaces: &PidNamespaces<'_>) -> Result<Vec<Setting>, Failure> {
    // Of these it is a flag of open(2), which signals nobody.
    let is_opened = |file: &File| matches!(file.kind, FileKind::Regular(_) | FileKind::Directory(_));
    let is_asynchronous = |file: &File| file.flags.contains(OpenFlags::FASYNC) && !is_opened(file);
    let told = image.files.iter().filter(|(_, file)| is_asynchronous(file) || file.owner.is_some());
    let told: BTreeMap<FileId, &File> = told.map(|(&id, file)| (id, file)).collect();
    let mut holders: BTreeMap<FileId, (Pid, Pid, u32)> = BTreeMap::new();
    let entered = image.threaded_in_user_namespaces();
    // Whoever can be anybody speaks for others.
    let (late, early): (Vec<_>, Vec<_>) = image.tables().partition(|table| entered.contains(&table.process));
    for table in early.into_iter().chain(late) {
        for fd in table.fds {
            let Some(file) = told.get(&fd.file) else { continue };
            if file.owner.as_ref().is_none_or(|owner| namespaces.seen_by(table.process, owner.id).is_ok()) {
                holders.entry(fd.file).or_insert((table.process, table.owner, fd.fd));
            }
        }
    }
    let mut settings = Vec::new();
    for (id, file) in told {
        let nobody = || {
            Failure::new(
                Kind::System,
                format!("{}: owner: no process has it open that knows its owner", file_entry(id)),
            )
        };
        let &(process, thread, fd) = holders.get(&id).ok_or_else(nobody)?;
        let flags = is_asynchronous(file).then_some(file.flags.0);
        let seen = |owner: &Owner| Ok(Owner { id: namespaces.seen_by(process, owner.id)?, ..owner.clone() });
        let owner = file.owner.as_ref().map(seen).transpose()?;
        settings.push(Setting { process, thread, fd, flags, owner, has_entered: entered.contains(&process) });
    }
    Ok(settings)
}

/// The calls of one setting, in a process that is root, or who said so.
pub fn apply(batch: &mut Batch, setting: &Setting) {
    let fd = setting.fd;
    let fcntl = |batch: &mut Batch, command: i32, argument, label| {
        batch.call(libc::SYS_fcntl, &[fd.into(), command.into(), argument], label);
    };
    if let Some(flags) = setting.flags {
        fcntl(batch, libc::F_SETFL, flags.into(), "fcntl(F_SETFL)");
    }
    // A terminal takes an owner of its own choice with O_ASYNC.
    let nobody = Owner { kind: OwnerKind::Thread, id: Pid(0), uid: 0, euid: 0, signal: None };
    let owner = setting.owner.as_ref().unwrap_or(&nobody);
    let kind = match owner.kind {
        OwnerKind::Thread => F_OWNER_TID,
        OwnerKind::Process => F_OWNER_PID,
        OwnerKind::Group => F_OWNER_PGRP,
    };
    let mut pair = kind.to_ne_bytes().to_vec();
    pair.extend_from_slice(&owner.id.0.to_ne_bytes());
    let pair = batch.data(&pair);
    let user = |batch: &mut Batch, uid: u32, euid: u32| {
        if (owner.uid, owner.euid) != (0, 0) && !setting.has_entered {
            // The saved id stays root's, which leads back.
            batch.call(libc::SYS_setresuid, &[uid.into(), euid.into(), 0.into()], "setresuid");
        }
    };
    user(batch, owner.uid, owner.euid);
    fcntl(batch, F_SETOWN_EX, pair.into(), "fcntl(F_SETOWN_EX)");
    user(batch, 0, 0);
    if let Some(signal) = owner.signal {
        fcntl(batch, F_SETSIG, i32::from(signal.0).into(), "fcntl(F_SETSIG)");
    }
}

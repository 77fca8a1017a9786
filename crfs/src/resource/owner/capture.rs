//! From what a duplicate answers to the record.

use crate::failure::{Doing, Failure};
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::{Holder, Seen};
use crate::resource::proc::{Proc, Status};
use crate::resource::subject::depth;
use crfs_sys::owner::{F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID};
use image_format::Pid;
use image_format::files::{OpenFlags, Owner, OwnerKind};
use image_format::signal::Signal;

const REMEDY: &str = "Run the program without signal-driven input and output.";

/// Asks who is signalled about a description. `holders` are its descriptors; none where only a message carries it.
/// `processes` are the container's, as it and as the host numbers them; `init` is the first, as the host does.
///
/// # Errors
/// When it cannot be asked: it is gone, as may be where tasks run.
pub(in crate::resource) fn capture(
    seen: &Seen,
    holders: &[Holder],
    processes: &[(Pid, i32)],
    init: i32,
) -> Result<Result<Option<Owner>, Refusal>, Failure> {
    // Nothing signals about a regular file without a lease, and a duplicate of one would be flushed when it is closed, which may wait for
    // a server.
    let leased = || seen.info.values("lock").any(|line| line.contains("LEASE"));
    if seen.is_path() || seen.file_type() == libc::S_IFREG && !leased() {
        return Ok(Ok(None));
    }
    let name = seen.name();
    let owner = seen.ask(crfs_sys::owner::get).doing(|| format!("{name}: asking for its owner"))?;
    if owner.id == 0 && owner.signal == 0 && owner.kind == F_OWNER_TID {
        return Ok(Ok(None));
    }
    if seen.file_type() == libc::S_IFDIR {
        let reason = format!("directory {name} is watched (F_NOTIFY) and cannot be carried");
        return Ok(Err(Refusal::new(reason, "Use inotify or nothing in its place.")));
    }
    if holders.is_empty() {
        let reason =
            format!("{name} has an owner that is to be signalled (F_SETOWN, F_SETSIG) and is under way in a message");
        return Ok(Err(Refusal::new(reason, "Try again when the message was received.")));
    }
    let signals = seen.flags().contains(OpenFlags::FASYNC) && owner.signal != 0;
    if signals && holders.iter().any(|holder| holder.fd != seen.holder.fd) {
        let reason = format!(
            "{name} tells its number with a signal (F_SETSIG, O_ASYNC), and has several, which cannot be carried"
        );
        return Ok(Err(Refusal::new(reason, REMEDY)));
    }
    let (kind, id) = match owner.kind {
        F_OWNER_PID => (OwnerKind::Process, process(owner.id, processes)?),
        F_OWNER_PGRP => (OwnerKind::Group, group(owner.id, processes, init)?),
        _ => (OwnerKind::Thread, thread(owner.id, processes, init)?),
    };
    let Some(id) = id else {
        let reason = format!("{name} signals process {} of the host, which is outside the container", owner.id);
        return Ok(Err(Refusal::new(reason, REMEDY)));
    };
    let (uid, euid) = if id == NOBODY { (0, 0) } else { (owner.uid, owner.euid) };
    let signal = u8::try_from(owner.signal).ok().filter(|&signal| signal != 0).map(Signal);
    Ok(Ok(Some(Owner { kind, id, uid, euid, signal })))
}

const NOBODY: Pid = Pid(0);

/// What a process of the host is called in the container; None: it is outside.
fn process(host: i32, processes: &[(Pid, i32)]) -> Result<Option<Pid>, Failure> {
    if host == 0 {
        return Ok(Some(NOBODY));
    }
    if let Some(&(pid, _)) = processes.iter().find(|(_, known)| *known == host) {
        return Ok(Some(pid));
    }
    // A zombie is signalled without effect.
    let stat = Proc::open()?.text(format_args!("{host}/stat")).map(|text| text.rfind(") Z").is_some())?;
    Ok(stat.then_some(NOBODY))
}

fn thread(host: i32, processes: &[(Pid, i32)], init: i32) -> Result<Option<Pid>, Failure> {
    let mut proc = Proc::open()?;
    let of = |&&(_, process): &&(Pid, i32)| std::path::Path::new(&format!("/proc/{process}/task/{host}")).exists();
    if host == 0 || !processes.iter().any(|process| of(&process)) {
        return process(host, processes);
    }
    let status = Status::read(&mut proc, &format!("{host}/status"))?;
    Ok(status.ns_pid.get(depth(&mut proc, init)?).copied().map(Pid))
}

fn group(host: i32, processes: &[(Pid, i32)], init: i32) -> Result<Option<Pid>, Failure> {
    if host == 0 {
        return Ok(Some(NOBODY));
    }
    let mut proc = Proc::open()?;
    let depth = depth(&mut proc, init)?;
    for (_, process) in processes {
        let status = Status::read(&mut proc, &format!("{process}/status"))?;
        if status.ns_pgid.first().is_some_and(|&group| i32::try_from(group) == Ok(host)) {
            return Ok(status.ns_pgid.get(depth).copied().map(Pid));
        }
    }
    Ok(None)
}

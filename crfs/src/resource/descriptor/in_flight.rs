//! Descriptions that are under way: sent over a Unix socket (SCM_RIGHTS) and not yet received.
//!
//! Looking at a message gives this process duplicates of what it carries. A description that some process also holds is known by
//! kcmp(2); any other lives in the message alone and joins the table, as held by this process while it captures. It may be a socket in
//! whose queue there are more of them, its own included.

use super::gather::Table;
use super::seen::{Holder, Process, Seen};
use crate::failure::{Doing, Failure};
use crate::resource::socket::capture::unix_style;
use crate::resource::unix_socket;
use crfs_sys::kcmp::compare_files;
use crfs_sys::socket_queue::{Credentials, Message};
use image_format::{FileId, Pid};
use nix::errno::Errno;
use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// A message that waits in a socket.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Bytes.
    pub(crate) data: Vec<u8>,
    /// `struct sockaddr` of its sender.
    pub(crate) from: Vec<u8>,
    /// With the process as the host numbers it.
    pub(crate) credentials: Option<Credentials>,
    /// The descriptions it carries.
    pub(crate) files: Vec<FileId>,
}

/// What waits in the Unix sockets of a container.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// By socket.
    pub(crate) queues: HashMap<FileId, Vec<Queued>>,
    /// Keep descriptions alive that live in messages alone, as long as they are captured.
    _held: Vec<OwnedFd>,
}

/// Looks into every Unix socket of the table, and adds what is found under way. The tasks stand still.
///
/// # Errors
/// When a queue cannot be looked at.
pub(crate) fn gather(table: &mut Table) -> Result<InFlight, Failure> {
    let mut found = InFlight::default();
    let own = std::process::id().cast_signed();
    let own = Arc::new(Process::open(own).doing(|| "looking at descriptors of this process")?);
    // The table grows while this goes through it.
    let mut index = 0;
    while index < table.descriptions.len() {
        let id = super::capture::id(index);
        let seen = &table.descriptions[index].seen;
        index += 1;
        if seen.file_type() != libc::S_IFSOCK || seen.is_path() {
            continue;
        }
        let doing = || format!("{}: looking at what waits in it", seen.name());
        let messages = match unix_style(seen).doing(doing)? {
            Some((socket, style)) => match unix_socket::look(socket, style) {
                // It listens, or was never connected.
                Err(Errno::EINVAL | Errno::ENOTCONN) => continue,
                other => other.doing(doing)?,
            },
            None => continue,
        };
        let mut queue = Vec::with_capacity(messages.len());
        for Message { data, from, files, credentials } in messages {
            let mut carried = Vec::with_capacity(files.len());
            for file in files {
                let (index, new) = find(table, &file, &own)?;
                carried.push(super::capture::id(index));
                if new {
                    found._held.push(file);
                }
            }
            queue.push(Queued { data, from, credentials, files: carried });
        }
        found.queues.insert(id, queue);
    }
    Ok(found)
}

/// The index of what one of this process's descriptors names, and whether it is new to the table.
fn find(table: &mut Table, file: &OwnedFd, process: &Arc<Process>) -> Result<(usize, bool), Failure> {
    let own = std::process::id().cast_signed();
    let holder = Holder { pid: IN_FLIGHT, owner: IN_FLIGHT, host: own, fd: file.as_raw_fd() };
    let doing = || "a descriptor under way: looking at it";
    let seen = Seen::look(holder, process).doing(doing)?.ok_or(Errno::EBADF).doing(doing)?;
    let pid = nix::unistd::Pid::from_raw;
    for (index, known) in table.descriptions.iter().enumerate().filter(|(_, known)| known.seen.inode() == seen.inode())
    {
        let Holder { host, fd, .. } = known.seen.holder;
        let compared = compare_files(pid(own), file.as_raw_fd(), pid(host), fd).doing(doing)?;
        if compared == crfs_sys::kcmp::Comparison::Equal {
            return Ok((index, false));
        }
    }
    Ok((table.add(seen), true))
}

/// Stands for a process where no process holds a description: ids begin with 1.
pub(crate) const IN_FLIGHT: Pid = Pid(0);

//! Connections that wait in a listening socket to be accepted, with what was sent over them already: nobody has a descriptor of that
//! end yet, so nobody can look at it.
//!
//! Of a Unix socket, the listening one's queue has a buffer for each connection, which belongs to the end that accept(2) will return.
//! What was sent waits in that end's own queue.
//!
//! Source: `unix_stream_connect`, `unix_stream_sendmsg` and `unix_accept` in net/unix/af_unix.c, include/net/af_unix.h, v6.18.

use crate::error::Error;
use crate::feature::Feature;
use crate::files;
use crate::paths::Path;
use crate::socket_buffers;
use crate::state::{KernelState, View};
use crate::tasks::{Task, word};

/// SCM_MAX_FD (include/net/scm.h).
const MAX_FILES: u16 = 253;

/// A connection that waits in a listening Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingUnix {
    /// Who connected: SO_PEERCRED of the end that accept(2) will return.
    pub client: Sender,
    /// Whether the client is bound to a name, which it keeps here when it is closed.
    pub is_named: bool,
    /// Whether a byte of it is urgent (MSG_OOB).
    pub has_urgent: bool,
    /// What was sent over it, first in first; of a stream, in the pieces that the kernel made of it.
    pub messages: Vec<SentMessage>,
}

/// A process with its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// In the host's pid namespace.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentMessage {
    /// Bytes.
    pub data: Vec<u8>,
    /// SCM_CREDENTIALS.
    pub sender: Option<Sender>,
    /// SCM_RIGHTS: the identities of the open file descriptions, as of [`KernelState::file_address`].
    pub files: Vec<u64>,
}

impl KernelState {
    /// The connections that wait in the listening Unix socket behind a descriptor, in their order. The descriptor must be one of such a socket,
    /// which SO_ACCEPTCONN tells.
    ///
    /// # Errors
    /// [`Error::NotOpen`], [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`]; [`Error::List`] when a queue changes meanwhile.
    pub fn pending_unix(&self, task: &Task, fd: i32) -> Result<Vec<PendingUnix>, Error> {
        let view = self.view(Feature::PendingUnix, task)?;
        waiting(&view, fd)?.into_iter().map(|end| self.pending(&view, end)).collect()
    }

    /// The same for a descriptor of the calling thread.
    ///
    /// # Errors
    /// As [`KernelState::pending_unix`].
    pub fn own_pending_unix(&self, fd: i32) -> Result<Vec<PendingUnix>, Error> {
        self.pending_unix(&Task::caller(0), fd)
    }

    fn pending(&self, view: &View<'_>, end: u64) -> Result<PendingUnix, Error> {
        let client = view.u64_from(end, &[Path::UnixPeer])?;
        let messages = socket_buffers::queue(view, end)?.into_iter().map(|buffer| self.message(view, buffer));
        Ok(PendingUnix {
            client: connected(view, end)?,
            is_named: client != 0 && view.u64_from(client, &[Path::UnixAddress])? != 0,
            has_urgent: view.u64_from(end, &[Path::UnixUrgent])? != 0,
            messages: messages.collect::<Result<_, _>>()?,
        })
    }

    fn message(&self, view: &View<'_>, buffer: u64) -> Result<SentMessage, Error> {
        let control = buffer.wrapping_add(view.offset(Path::SkbControl)?);
        let pid = view.u64_from(control, &[Path::MessagePid])?;
        let ids = (view.u32_from(control, &[Path::MessageUid])?, view.u32_from(control, &[Path::MessageGid])?);
        Ok(SentMessage {
            data: socket_buffers::bytes(view, buffer, self.known.bits.direct_map)?,
            sender: if pid == 0 { None } else { Some(sender(view, pid, ids)?) },
            files: carried(view, view.u64_from(control, &[Path::MessageFiles])?)?,
        })
    }
}

/// The ends (`struct sock`) that accept(2) on a listening Unix socket will return.
pub(crate) fn waiting(view: &View<'_>, fd: i32) -> Result<Vec<u64>, Error> {
    let connections = socket_buffers::queue(view, files::sock(view, fd)?)?;
    connections.into_iter().map(|buffer| view.u64_from(buffer, &[Path::SkbSock])).collect()
}

/// Whom an end is connected to.
fn connected(view: &View<'_>, end: u64) -> Result<Sender, Error> {
    let id = |path| view.u32_from(end, &[Path::SockPeerCred, path]);
    sender(view, view.u64_from(end, &[Path::SockPeerPid])?, (id(Path::CredEuid)?, id(Path::CredEgid)?))
}

/// `pid` is the address of a `struct pid`.
fn sender(view: &View<'_>, pid: u64, (uid, gid): (u32, u32)) -> Result<Sender, Error> {
    Ok(Sender { pid: view.u32_from(pid, &[Path::PidNumbers])?.cast_signed(), uid, gid })
}

/// `list` is the address of a `struct scm_fp_list`, or 0.
fn carried(view: &View<'_>, list: u64) -> Result<Vec<u64>, Error> {
    if list == 0 {
        return Ok(Vec::new());
    }
    let mut count = [0; 2];
    view.bytes_from(list, &[Path::CarriedCount], &mut count)?;
    let mut addresses = vec![0; usize::from(u16::from_ne_bytes(count).min(MAX_FILES)) * 8];
    view.bytes_from(list, &[Path::Carried], &mut addresses)?;
    Ok(addresses.chunks_exact(8).map(|address| word(address, 0)).collect())
}

//! Unix sockets.
//!
//! **What it is.** An end of a connection within one machine, or a place that datagrams are sent to. Its name is a path, lies in the
//! abstract name space, or it has none. Messages carry bytes, and with them credentials and descriptors.
//!
//! **Where the kernel keeps it.** `struct unix_sock`: <https://elixir.bootlin.com/linux/v6.18/source/net/unix/af_unix.c>.
//!
//! **How it is read.** sock_diag(7) gives names, peers and who waits to be accepted; what is queued is looked at through a duplicate
//! with MSG_PEEK and SO_PEEK_OFF. Descriptors in messages arrive as duplicates, which tells the descriptions that live nowhere else.
//! What was sent over a connection that waits to be accepted is in an end that nobody can look at: kernel memory tells it.
//!
//! **How it is made again.** Names are bound with the container's mounts and root, where the stale file of the original is replaced; a
//! name whose file is gone is bound in an empty directory, so that nothing appears. Pairs without names are made by
//! socketpair(2), others by listen, connect and accept. listen, connect and socketpair leave the credentials of their caller behind
//! (SO_PEERCRED), so the process that they belong to makes them, as the user it was. Then queues are filled, by the sockets the
//! messages came from, clients that wait to be accepted connect and send again, and what was shut down is shut down.
//!
//! A socket outside that was declared is connected to anew, last of all.
//!
//! **What is refused.** A peer outside the container that was not declared, or of which data waits; a message from a name that is gone; connections that wait to be accepted and
//! whose client is outside, or that hold a descriptor that no process has; a relative name that is not found in the process's directory.

mod calls;
mod capture;
mod diag;
mod names;
mod pending;
mod queue;
mod restore;

pub(super) use capture::{Context, capture};
pub(super) use queue::look;
pub(super) use restore::restore;

use super::socket::capture::Socket;

/// Whether it is a Unix socket of a style that is carried.
pub(super) fn is_one(socket: &Socket<'_>) -> bool {
    socket.family == libc::AF_UNIX && socket.style.is_some()
}

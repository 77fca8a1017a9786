//! Connections that wait to be accepted, made again: the client connects, and sends what it had sent.

use super::restore::{bound, finish, fresh, give, queues, shut};
use super::tcp;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::loopback::settle_within;
use crate::resource::socket::address::inet;
use crate::resource::socket::options;
use crate::resource::socket::restore::Site;
use crfs_sys::socket_options::{connect, set_number};
use image_format::FileId;
use image_format::layout::file_entry;
use image_format::socket::{ClosedClient, InetClient, InetLink, InetListening, InetSocket, SocketStyle, TcpConnection};
use nix::errno::Errno;
use nix::sys::socket::AddressFamily;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// A connection over the loopback interface comes about in a moment; on a machine that is busy the moment may be long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the clients of every listening socket, which stand in `open` already.
pub(super) fn restore(
    site: &Site<'_>,
    records: &BTreeMap<FileId, &InetSocket>,
    open: &mut BTreeMap<FileId, OwnedFd>,
) -> Result<(), Failure> {
    for (&id, socket) in records {
        if let InetLink::Listening(listening) = &socket.link {
            for (client, fd) in clients(site, records, (id, socket, listening), open)? {
                open.insert(client, fd);
            }
        }
    }
    Ok(())
}

/// The clients of one listening socket, in their order.
fn clients(
    site: &Site<'_>,
    records: &BTreeMap<FileId, &InetSocket>,
    (id, socket, listening): (FileId, &InetSocket, &InetListening),
    open: &BTreeMap<FileId, OwnedFd>,
) -> Result<Vec<(FileId, OwnedFd)>, Failure> {
    let object = file_entry(id);
    let listener = open.get(&id).ok_or(Errno::EBADF).doing(|| format!("{object}: was not made"))?.as_fd();
    if listening.pending.is_empty() {
        return Ok(Vec::new());
    }
    // What accept(2) returns takes them over when the client connects.
    finish(id, socket, open)?;
    // With this one a client would not come to wait until it has sent something. It is set once more with the others at the end.
    let of_itself = set_number(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 0);
    of_itself.doing(|| format!("{object}: TCP_DEFER_ACCEPT"))?;
    let mut arrived = site.queue(id, socket.queue_size())?;
    let mut made = Vec::new();
    for (before, pending) in (0..).zip(&listening.pending) {
        let length = usize::try_from(pending.received).unwrap_or(usize::MAX).min(arrived.len());
        let rest = arrived.split_off(length);
        let sent = std::mem::replace(&mut arrived, rest);
        match pending.client {
            InetClient::Open(client) => made.push((client, self::open(site, records, (id, client), sent)?)),
            InetClient::Closed(client) => closed(id, client, &sent)?,
        }
        // They are accepted in the order in which they came.
        let came = settle_within(PATIENCE, || tcp::info(listener), |info| info.waiting > before)
            .doing(|| format!("{object}: TCP_INFO"))?;
        if came.waiting <= before {
            let reason = format!("{object}: pending: a connection to it does not come to wait there");
            return Err(Failure::new(Kind::Incompatible, reason));
        }
    }
    Ok(made)
}

/// A client, which has sent what has arrived and what has not.
fn open(
    site: &Site<'_>,
    records: &BTreeMap<FileId, &InetSocket>,
    (listener, id): (FileId, FileId),
    mut sent: Vec<u8>,
) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let socket = records.get(&id).copied();
    let Some((socket, local, connection)) =
        socket.and_then(|socket| Some((socket, socket.local?, connection(socket)?)))
    else {
        let reason = format!("{}: pending: {object} is no TCP connection", file_entry(listener));
        return Err(Failure::new(Kind::BadImage, reason));
    };
    let fd = fresh(id, socket)?;
    options::restore_first(fd.as_fd(), &socket.options, &object)?;
    connected(id, fd.as_fd(), local, connection.remote)?;
    let (received, unsent) = queues(site, id, socket)?;
    if !received.is_empty() {
        let reason = format!("{object}: received: nobody has accepted it, and nobody has sent it anything");
        return Err(Failure::new(Kind::BadImage, reason));
    }
    sent.extend(unsent);
    give(fd.as_fd(), &sent).doing(|| format!("{object}: sending again"))?;
    shut(fd.as_fd(), connection).doing(|| format!("{object}: shutting it down"))?;
    Ok(fd)
}

fn connection(socket: &InetSocket) -> Option<&TcpConnection> {
    match &socket.link {
        InetLink::Connected(connection) => Some(connection),
        _ => None,
    }
}

/// A client that connects, sends, and is closed.
fn closed(listener: FileId, ClosedClient { from, to }: ClosedClient, sent: &[u8]) -> Result<(), Failure> {
    let object = file_entry(listener);
    let family = if from.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = options::fresh(family, SocketStyle::Stream).doing(|| format!("{object}: making a client"))?;
    connected(listener, fd.as_fd(), from, to)?;
    give(fd.as_fd(), sent).doing(|| format!("{object}: sending what {from} had sent"))
}

/// Connects a socket from one address to another, and waits until it is connected.
fn connected(id: FileId, fd: BorrowedFd<'_>, from: SocketAddr, to: SocketAddr) -> Result<(), Failure> {
    let object = file_entry(id);
    // A program that connects gets a port beside those that are listened on.
    set_number(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1).doing(|| format!("{object}: SO_REUSEADDR"))?;
    bound(id, fd, from)?;
    let result = match connect(fd, &inet(to)) {
        // The loopback interface answers at once.
        Ok(()) | Err(Errno::EINPROGRESS) => {
            settle_within(PATIENCE, || tcp::info(fd), |info| info.state == tcp::ESTABLISHED)
        }
        Err(errno) => Err(errno),
    };
    let connected = result.and_then(|info| if info.state == tcp::ESTABLISHED { Ok(()) } else { Err(Errno::ETIMEDOUT) });
    connected.doing(|| format!("{object}: connecting to {to}"))
}

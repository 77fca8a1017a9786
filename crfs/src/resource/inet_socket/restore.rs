//! From the records to sockets with all they had.

use super::tcp::{self, Agreed, Queue};
use super::waiting;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::socket::address::{inet, plain};
use crate::resource::socket::options;
use crate::resource::socket::restore::Site;
use crfs_sys::socket_options::{bind, connect, listen, set_number};
use crfs_sys::socket_queue::send;
use image_format::FileId;
use image_format::files::FileKind;
use image_format::layout::file_entry;
use image_format::socket::{InetLink, InetSocket, SocketStyle, TcpConnection};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Shutdown, shutdown};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Where sequence numbers begin. Nobody sees them.
const FIRST_BYTE: u32 = 1 << 20;

/// Makes the TCP and UDP sockets of one network of an image (0: the container's own), which the calling thread is in.
///
/// # Errors
/// [`Kind::Incompatible`] where an address is taken, with one entry in the chain.
pub(in crate::resource) fn restore(
    site: &Site<'_>,
    network: usize,
    open: &mut BTreeMap<FileId, OwnedFd>,
) -> Result<(), Failure> {
    let records: BTreeMap<FileId, &InetSocket> = site
        .image
        .files
        .iter()
        .filter_map(|(&id, file)| match &file.kind {
            FileKind::InetSocket(socket) => Some((id, &**socket)),
            _ => None,
        })
        .filter(|&(id, _)| site.image.network_of_socket(id) == network)
        .collect();
    for (&id, socket) in &records {
        if let Some(fd) = unconnected(id, socket)? {
            open.insert(id, fd);
        }
    }
    for (&id, socket) in &records {
        if socket.style == SocketStyle::Datagram {
            fill_datagrams(site, id, socket, &records, open)?;
        }
    }
    for (&id, socket) in &records {
        match &socket.link {
            InetLink::Directed(remote) => direct(id, *remote, open)?,
            InetLink::Connected(connection) => {
                let peer = connection.peer.and_then(|peer| Some((peer, *records.get(&peer)?)));
                match peer {
                    Some((peer, _)) if open.contains_key(&id) && open.contains_key(&peer) => {}
                    Some((peer, other)) if matches!(other.link, InetLink::Connected(_)) => {
                        let (one, two) = pair(site, (id, socket), Some((peer, other)))?;
                        open.insert(id, one);
                        open.insert(peer, two);
                    }
                    // Waits to be accepted: below.
                    Some(_) => {}
                    None => {
                        // Its other end is closed at once.
                        let (one, _) = pair(site, (id, socket), None)?;
                        open.insert(id, one);
                    }
                }
            }
            InetLink::Ended => {
                open.insert(id, ended(site, id, socket)?);
            }
            InetLink::Unconnected | InetLink::Listening(_) => {}
        }
    }
    waiting::restore(site, &records, open)?;
    records.iter().try_for_each(|(&id, socket)| finish(id, socket, open))
}

pub(super) fn fresh(id: FileId, socket: &InetSocket) -> Result<OwnedFd, Failure> {
    let family = if socket.ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
    options::fresh(family, socket.style).doing(|| format!("{}: making a socket", file_entry(id)))
}

pub(super) fn bound(id: FileId, fd: BorrowedFd<'_>, local: SocketAddr) -> Result<(), Failure> {
    bind(fd, &inet(local)).map_err(|errno| {
        let reason = format!("{}: local: {local} cannot be had here: {}", file_entry(id), errno.desc());
        Failure::new(Kind::Incompatible, reason)
    })
}

/// A socket that is bound at most, or listens. None for the others but UDP, which is connected later.
fn unconnected(id: FileId, socket: &InetSocket) -> Result<Option<OwnedFd>, Failure> {
    let object = file_entry(id);
    if matches!(socket.link, InetLink::Connected(_) | InetLink::Ended) {
        return Ok(None);
    }
    let fd = fresh(id, socket)?;
    options::restore_first(fd.as_fd(), &socket.options, &object)?;
    if let Some(local) = socket.local {
        bound(id, fd.as_fd(), local)?;
    }
    if let InetLink::Listening(listening) = &socket.link {
        let backlog = i32::try_from(listening.backlog).unwrap_or(i32::MAX);
        listen(fd.as_fd(), backlog).doing(|| format!("{object}: listening"))?;
    }
    Ok(Some(fd))
}

fn direct(id: FileId, remote: SocketAddr, open: &BTreeMap<FileId, OwnedFd>) -> Result<(), Failure> {
    let object = file_entry(id);
    let fd = open.get(&id).ok_or(Errno::EBADF).doing(|| format!("{object}: was not made"))?;
    connect(fd.as_fd(), &inet(remote)).doing(|| format!("{object}: connecting to {remote}"))
}

/// Both ends of a connection. Without a peer the second is of no entry.
fn pair(
    site: &Site<'_>,
    (id, socket): (FileId, &InetSocket),
    peer: Option<(FileId, &InetSocket)>,
) -> Result<(OwnedFd, OwnedFd), Failure> {
    let object = file_entry(id);
    let doing = || format!("{object}: making the connection");
    let (Some(local), InetLink::Connected(own)) = (socket.local, &socket.link) else {
        return Err(Failure::new(Kind::BadImage, format!("{object}: local: it is connected and has no address")));
    };
    let (theirs, their_local) = match peer.map(|(_, other)| (&other.link, other.local)) {
        Some((InetLink::Connected(theirs), Some(their_local))) => (theirs, their_local),
        _ => (own, own.remote),
    };
    let their_record = peer.map_or(socket, |(_, other)| other);
    let (received, unsent) = queues(site, id, socket)?;
    let (their_received, their_unsent) = match peer {
        Some((id, other)) => queues(site, id, other)?,
        None => (Vec::new(), Vec::new()),
    };
    // What one end has received the other has sent.
    let begins = |other_received: &[u8]| FIRST_BYTE.wrapping_add(u32::try_from(other_received.len()).unwrap_or(0));
    let end =
        |id: FileId, record: &InetSocket, ends: (SocketAddr, SocketAddr), received: &[u8], sent: u32, mine, other| {
            let fd = repaired(id, record, ends, sent, agreed(mine, other))?;
            put_received(fd.as_fd(), received).doing(doing)?;
            Ok::<_, Failure>(fd)
        };
    let one = end(id, socket, (local, own.remote), &received, begins(&their_received), own, theirs)?;
    let other = peer.map_or(id, |(id, _)| id);
    let their_remote = peer.map_or(local, |_| theirs.remote);
    let two = end(other, their_record, (their_local, their_remote), &their_received, begins(&received), theirs, own)?;
    leave_repair((one.as_fd(), &received), (two.as_fd(), &their_received)).doing(doing)?;
    for (fd, unsent) in [(&one, &unsent), (&two, &their_unsent)] {
        give(fd.as_fd(), unsent).doing(|| format!("{object}: sending what had not arrived"))?;
    }
    if peer.is_none() {
        shutdown(two.as_raw_fd(), Shutdown::Write).doing(doing)?;
    }
    for (fd, own) in [(&one, own)].into_iter().chain(peer.map(|_| (&two, theirs))) {
        shut(fd.as_fd(), own).doing(|| format!("{object}: shutting it down"))?;
    }
    Ok((one, two))
}

/// Ends what the program has ended.
pub(super) fn shut(fd: BorrowedFd<'_>, connection: &TcpConnection) -> nix::Result<()> {
    for (wanted, how) in [(connection.send_shut, Shutdown::Write), (connection.receive_shut, Shutdown::Read)] {
        if wanted {
            shutdown(fd.as_raw_fd(), how)?;
        }
    }
    Ok(())
}

/// Tells both ends of a connection, each with what it has received, what the other takes, and lets them go.
fn leave_repair(one: (BorrowedFd<'_>, &[u8]), two: (BorrowedFd<'_>, &[u8])) -> nix::Result<()> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).map_err(|_| Errno::EFBIG);
    let (received, theirs) = (length(one.1)?, length(two.1)?);
    let (room, their_room) = (tcp::room(one.0, received)?, tcp::room(two.0, theirs)?);
    tcp::set_windows(one.0, FIRST_BYTE.wrapping_add(received), room, their_room)?;
    tcp::set_windows(two.0, FIRST_BYTE.wrapping_add(theirs), their_room, room)?;
    tcp::end_repair(one.0)?;
    tcp::end_repair(two.0)
}

/// What was received, and what had not arrived at the other end.
pub(super) fn queues(site: &Site<'_>, id: FileId, socket: &InetSocket) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let mut received = site.queue(id, socket.queue_size())?;
    let at = usize::try_from(socket.received).unwrap_or(usize::MAX).min(received.len());
    let unsent = received.split_off(at);
    Ok((received, unsent))
}

/// What an end agreed on with another.
fn agreed(own: &TcpConnection, other: &TcpConnection) -> Agreed {
    Agreed {
        mss: other.advertised_mss,
        scales: other.window_scale.zip(own.window_scale),
        sack: own.sack,
        timestamps: own.timestamps,
    }
}

/// One end of a connection, under repair. `sent` is the number of the next byte it sends.
fn repaired(
    id: FileId,
    socket: &InetSocket,
    (local, remote): (SocketAddr, SocketAddr),
    sent: u32,
    agreed: Agreed,
) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let fd = fresh(id, socket)?;
    options::restore_first(fd.as_fd(), &socket.options, &object)?;
    let ask = fd.as_fd();
    // From here on it takes any address that the machine has, also one where another listens.
    tcp::begin_repair(ask).doing(|| format!("{object}: TCP_REPAIR"))?;
    let numbers =
        tcp::set_sequence(ask, Queue::Send, sent).and_then(|()| tcp::set_sequence(ask, Queue::Receive, FIRST_BYTE));
    numbers.doing(|| format!("{object}: setting sequence numbers"))?;
    bound(id, ask, local)?;
    connect(ask, &inet(remote)).map_err(|errno| {
        let reason = format!("{object}: a connection from {local} to {remote} cannot be had here: {}", errno.desc());
        Failure::new(Kind::Incompatible, reason)
    })?;
    tcp::set_agreed(ask, agreed).doing(|| format!("{object}: setting what the connection's ends agreed on"))?;
    Ok(fd)
}

/// Puts bytes into the receive queue of a connection under repair.
fn put_received(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<()> {
    options::make_room(fd, libc::SO_RCVBUF, bytes.len() as u64)?;
    tcp::choose(fd, Queue::Receive)?;
    give_all(fd, bytes)
}

/// Gives bytes to a connection to be sent.
pub(super) fn give(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    options::make_room(fd, libc::SO_SNDBUF, bytes.len() as u64)?;
    give_all(fd, bytes)
}

fn give_all(fd: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let taken = send(fd, rest, &[], None, &[])?;
        if taken == 0 {
            return Err(Errno::EAGAIN);
        }
        rest = &rest[taken..];
    }
    Ok(())
}

/// A connection that has ended both ways: its other end, at the port beside, ends first.
fn ended(site: &Site<'_>, id: FileId, socket: &InetSocket) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let no_address = || Failure::new(Kind::BadImage, format!("{object}: local: it was connected and has no address"));
    let local = socket.local.ok_or_else(no_address)?;
    let remote = SocketAddr::new(local.ip(), local.port() ^ 1);
    let connection = TcpConnection {
        remote,
        peer: None,
        send_shut: true,
        receive_shut: false,
        advertised_mss: 536,
        window_scale: None,
        sack: false,
        timestamps: false,
    };
    let record = InetSocket { link: InetLink::Connected(connection), ..socket.clone() };
    pair(site, (id, &record), None).map(|(one, _)| one)
}

/// Sends a UDP socket what it had not received, from where it came.
fn fill_datagrams(
    site: &Site<'_>,
    id: FileId,
    socket: &InetSocket,
    records: &BTreeMap<FileId, &InetSocket>,
    open: &BTreeMap<FileId, OwnedFd>,
) -> Result<(), Failure> {
    let object = file_entry(id);
    let data = site.queue(id, socket.queue_size())?;
    let mut rest = data.as_slice();
    let fd = open.get(&id).ok_or(Errno::EBADF).doing(|| format!("{object}: was not made"))?;
    options::make_room(fd.as_fd(), libc::SO_RCVBUF, data.len() as u64).doing(|| format!("{object}: making room"))?;
    for datagram in &socket.datagrams {
        let length = usize::try_from(datagram.length).unwrap_or(usize::MAX).min(rest.len());
        let (bytes, after) = rest.split_at(length);
        rest = after;
        let local = socket.local.ok_or_else(|| {
            Failure::new(Kind::BadImage, format!("{object}: datagrams: it is not bound, so nothing reaches it"))
        })?;
        let has_it = |(_, other): &(&FileId, &&InetSocket)| {
            let same = |own: SocketAddr| {
                let (own, from) = (plain(own), plain(datagram.from));
                own.1 == from.1 && (own.0 == from.0 || own.0.is_unspecified())
            };
            other.style == SocketStyle::Datagram && other.ipv6 == socket.ipv6 && other.local.is_some_and(same)
        };
        let doing = || format!("{object}: sending it a datagram from {}", datagram.from);
        let sender = records.iter().find(has_it).and_then(|(other, _)| open.get(other));
        let passing = match sender {
            Some(_) => None,
            None => {
                let passing = fresh(id, socket)?;
                bind(passing.as_fd(), &inet(datagram.from)).doing(doing)?;
                Some(passing)
            }
        };
        if let Some(sender) = sender.or(passing.as_ref()) {
            send(sender.as_fd(), bytes, &[], None, &inet(reachable(local))).doing(doing)?;
        }
    }
    Ok(())
}

/// An address that leads to a socket bound to `local`.
fn reachable(local: SocketAddr) -> SocketAddr {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
    match local.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), local.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), local.port()),
        _ => local,
    }
}

/// Options, owner, and what the making has changed.
pub(super) fn finish(id: FileId, socket: &InetSocket, open: &BTreeMap<FileId, OwnedFd>) -> Result<(), Failure> {
    let object = file_entry(id);
    let fd = open.get(&id).ok_or(Errno::EBADF).doing(|| format!("{object}: was not made"))?;
    let reuse = socket.options.number("SO_REUSEADDR").unwrap_or(0);
    set_number(fd.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, reuse).doing(|| format!("{object}: SO_REUSEADDR"))?;
    if let Some(name) = &socket.congestion {
        tcp::set_congestion(fd.as_fd(), name).map_err(|errno| {
            let reason = format!("{object}: congestion: {name:?} cannot be had here: {}", errno.desc());
            Failure::new(Kind::Incompatible, reason)
        })?;
    }
    options::restore_last(fd.as_fd(), &socket.options, (socket.uid, socket.gid), &object)
}

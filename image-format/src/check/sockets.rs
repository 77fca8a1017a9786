//! Sockets among `files/`: names and options that the kernel takes, and ends of connections that say the same.

use super::Findings;
use super::seccomp::INSTRUCTIONS_LIMIT;
use crate::files::FileKind;
use crate::image::Image;
use crate::layout::file_entry;
use crate::socket::{
    InetLink, InetSocket, NetlinkSocket, SocketOptions, SocketStyle, TcpConnection, UnixLink, UnixName, UnixPath,
    UnixSocket, known_option,
};
use crate::types::{Blob, Bytes, FileId};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// `sun_path` without the NUL behind a path or in front of an abstract name (include/uapi/linux/un.h, v6.18).
const NAME_MAX: usize = 107;
/// SCM_MAX_FD (include/net/scm.h, v6.18).
const FILES_MAX: usize = 253;
/// A datagram's length has 16 bits (udp(7)).
const DATAGRAM_MAX: u64 = 0xffff;

pub(super) fn check(image: &Image, findings: &mut Findings) {
    let mut names = BTreeMap::new();
    let mut ports = BTreeMap::new();
    for (&id, file) in image.files.iter().filter(|(_, file)| file.kind.is_socket()) {
        let mut tell = |problem: String| findings.add(&file_entry(id), problem);
        let network = image.network_of_socket(id);
        match &file.kind {
            FileKind::UnixSocket(socket) => {
                unix(image, id, socket, &mut tell);
                if let Some(name) = socket.name.as_ref().and_then(|name| taken(name, network))
                    && let Some(other) = names.insert(name.clone(), id)
                {
                    tell(format!("name: {:?} is that of {} too", name.1, file_entry(other)));
                }
            }
            FileKind::InetSocket(socket) => inet(image, id, socket, &mut tell),
            FileKind::NetlinkSocket(socket) => {
                netlink(socket, &mut tell);
                if socket.port != 0
                    && let Some(other) = ports.insert((network, socket.protocol, socket.port), id)
                {
                    tell(format!("port: {} is that of {} too", socket.port, file_entry(other)));
                }
            }
            _ => {}
        }
    }
}

/// A name that no other socket can have at the same time, with the network in which that is so of an abstract one.
fn taken(name: &UnixName, network: usize) -> Option<(Option<usize>, Bytes)> {
    match name {
        UnixName::Abstract(name) => Some((Some(network), name.clone())),
        UnixName::Path(path) => {
            let own = &path.path;
            let whole = path.directory.as_ref().map(|directory| Bytes([&directory.0[..], &own.0].join(&b'/')));
            Some((None, whole.unwrap_or_else(|| own.clone())))
        }
        _ => None,
    }
}

fn unix_at(image: &Image, id: FileId) -> Option<&UnixSocket> {
    match &image.files.get(&id)?.kind {
        FileKind::UnixSocket(socket) => Some(socket),
        _ => None,
    }
}

fn inet_at(image: &Image, id: FileId) -> Option<&InetSocket> {
    match &image.files.get(&id)?.kind {
        FileKind::InetSocket(socket) => Some(socket),
        _ => None,
    }
}

fn unix(image: &Image, id: FileId, socket: &UnixSocket, tell: &mut dyn FnMut(String)) {
    options(&socket.options, tell);
    unix_name(image, id, socket, tell);
    match &socket.link {
        UnixLink::Unconnected | UnixLink::Closed(_) => {}
        UnixLink::External(external) => {
            match external.path.0.strip_prefix(b"@") {
                // A NUL stands in the place of the sign.
                Some(name) if name.is_empty() || name.len() > NAME_MAX => {
                    tell(format!("link: external: {:?} is no abstract name", external.path));
                }
                Some(_) => {}
                None => unix_path(&external.path, tell),
            }
            if !external.path.0.starts_with(b"/") && !external.path.0.starts_with(b"@") {
                tell(format!("link: external: {:?} is not absolute", external.path));
            }
            if socket.style != SocketStyle::Datagram && !socket.queued.is_empty() {
                tell("queued: nothing can be put into a connection to the outside".to_owned());
            }
        }
        UnixLink::Connected(peer) => unix_peer(image, id, socket, *peer, tell),
        UnixLink::Listening(listening) => {
            if socket.style == SocketStyle::Datagram || socket.name.is_none() {
                tell("link: listening takes a stream or seqpacket socket with a name".to_owned());
            }
            let mut seen = BTreeSet::new();
            for client in listening.pending.iter().filter_map(|pending| pending.client) {
                if !seen.insert(client) {
                    tell(format!("pending: {} stands there twice", file_entry(client)));
                }
                if !unix_at(image, client).is_some_and(|client| client.link == UnixLink::Connected(id)) {
                    tell(format!("pending: {} is no Unix socket that is connected to it", file_entry(client)));
                }
            }
        }
    }
    for message in socket.messages() {
        if message.files.len() > FILES_MAX {
            tell(format!("queued: a message carries {FILES_MAX} descriptors at most"));
        }
        for &file in message.files.iter().filter(|file| !image.files.contains_key(file)) {
            tell(format!("queued: there is no {}", file_entry(file)));
        }
        if let Some(from) = message.from
            && !unix_at(image, from).is_some_and(|from| from.style == SocketStyle::Datagram && from.name.is_some())
        {
            tell(format!("queued: from: {} is no datagram socket with a name", file_entry(from)));
        }
        if let Some(from) = message.from.filter(|_| !has_path(socket)) {
            same_network(image, id, from, "queued: from", tell);
        }
        if message.length == 0 && socket.style == SocketStyle::Stream {
            tell("queued: a stream has no message without bytes".to_owned());
        }
    }
}

fn unix_name(image: &Image, id: FileId, socket: &UnixSocket, tell: &mut dyn FnMut(String)) {
    match &socket.name {
        None => {}
        Some(UnixName::Abstract(name) | UnixName::FormerAbstract(name)) => unix_abstract(name, tell),
        Some(UnixName::Path(UnixPath { path, directory, .. })) => {
            unix_path(path, tell);
            match directory {
                Some(directory) => {
                    if let Some(problem) = super::absolute(directory) {
                        tell(format!("name: directory: {problem}"));
                    }
                }
                None if path.0.starts_with(b"/") => {}
                None => tell(format!("name: path: {path:?} is relative, and there is no directory")),
            }
        }
        Some(UnixName::FormerPath(path)) => unix_path(path, tell),
        Some(UnixName::Accepted(listener)) => {
            let there = unix_at(image, *listener);
            let fits = |listener: &UnixSocket| matches!(listener.link, UnixLink::Listening(_));
            if !there.is_some_and(|listener| fits(listener) && listener.style == socket.style) {
                tell(format!("name: accepted: {} is no listening Unix socket of its style", file_entry(*listener)));
            }
            if !there.is_some_and(has_path) {
                same_network(image, id, *listener, "name: accepted", tell);
            }
        }
    }
}

fn unix_abstract(name: &Bytes, tell: &mut dyn FnMut(String)) {
    if name.0.len() > NAME_MAX {
        tell(format!("name: {} bytes: the kernel takes {NAME_MAX}", name.0.len()));
    }
}

fn unix_path(path: &Bytes, tell: &mut dyn FnMut(String)) {
    if path.0.is_empty() || path.0.len() > NAME_MAX || path.0.contains(&0) {
        tell(format!("name: path: {path:?} is not 1 to {NAME_MAX} bytes without NUL"));
    }
}

fn unix_peer(image: &Image, id: FileId, socket: &UnixSocket, peer: FileId, tell: &mut dyn FnMut(String)) {
    let other = file_entry(peer);
    let Some(there) = unix_at(image, peer).filter(|there| there.style == socket.style) else {
        return tell(format!("link: connected: {other} is no Unix socket of its style"));
    };
    // What is accepted is made where its client is, and only paths lead from one network to another.
    let is_its_end = matches!(there.link, UnixLink::Connected(_)) && socket.style != SocketStyle::Datagram;
    if is_its_end || !has_path(there) {
        same_network(image, id, peer, "link: connected", tell);
    }
    match &there.link {
        UnixLink::Listening(listening) if listening.pending.iter().any(|pending| pending.client == Some(id)) => {}
        UnixLink::Listening(_) => tell(format!("link: connected: {other} does not list it as pending")),
        UnixLink::Connected(back) if *back == id => {}
        _ if socket.style == SocketStyle::Datagram && there.name.is_some() => {}
        _ => tell(format!("link: connected: {other} is not connected to it")),
    }
}

/// Whether a path leads to it, from every network.
fn has_path(socket: &UnixSocket) -> bool {
    matches!(socket.name, Some(UnixName::Path(_) | UnixName::FormerPath(_)))
}

/// Tells of another socket, which a field names, that it was made in another network.
fn same_network(image: &Image, id: FileId, other: FileId, field: &str, tell: &mut dyn FnMut(String)) {
    if image.network_of_socket(id) != image.network_of_socket(other) {
        tell(format!("{field}: {} is in another net namespace", file_entry(other)));
    }
}

fn inet(image: &Image, id: FileId, socket: &InetSocket, tell: &mut dyn FnMut(String)) {
    options(&socket.options, tell);
    let stream = socket.style == SocketStyle::Stream;
    let allowed = match &socket.link {
        InetLink::Unconnected => true,
        InetLink::Directed(_) => !stream,
        InetLink::Listening(_) | InetLink::Connected(_) | InetLink::Ended => stream,
    };
    if socket.style == SocketStyle::Seqpacket || !allowed {
        tell("link: TCP sockets are streams and listen or connect, UDP sockets are datagram sockets".to_owned());
    }
    if socket.local.is_none() && !matches!(socket.link, InetLink::Unconnected) {
        tell("local: it is connected or listens, and has no address".to_owned());
    }
    let carried = matches!(socket.link, InetLink::Connected(_) | InetLink::Ended);
    if !carried && (socket.received, socket.unsent) != (0, 0) || stream && !socket.datagrams.is_empty() {
        tell("received, unsent, datagrams: more than a socket of this kind can hold".to_owned());
    }
    let remote = match &socket.link {
        InetLink::Directed(remote) => Some(*remote),
        InetLink::Connected(connection) => Some(connection.remote),
        _ => None,
    };
    let addresses = socket.local.iter().chain(&remote).chain(socket.datagrams.iter().map(|datagram| &datagram.from));
    for address in addresses.filter(|address| address.is_ipv6() != socket.ipv6) {
        tell(format!("{address} is of the other version of IP"));
    }
    if let Some(large) = socket.datagrams.iter().find(|datagram| datagram.length > DATAGRAM_MAX) {
        tell(format!("datagrams: {} bytes: the largest has {DATAGRAM_MAX}", large.length));
    }
    match &socket.link {
        InetLink::Listening(listening) => {
            let mut seen = BTreeSet::new();
            for client in listening.clients() {
                if !seen.insert(client) {
                    tell(format!("pending: {} stands there twice", file_entry(client)));
                }
                let peer = inet_at(image, client).and_then(connection).and_then(|connection| connection.peer);
                if peer != Some(id) {
                    tell(format!("pending: {} is no TCP socket that is connected to it", file_entry(client)));
                }
            }
        }
        InetLink::Connected(connection) => {
            if connection.window_scale.is_some_and(|scale| scale > 14) {
                tell("window_scale: the largest is 14".to_owned());
            }
            if let Some(peer) = connection.peer {
                tcp_peer(image, id, socket, connection, peer, tell);
            }
        }
        _ => {}
    }
}

fn connection(socket: &InetSocket) -> Option<&TcpConnection> {
    match &socket.link {
        InetLink::Connected(connection) => Some(connection),
        _ => None,
    }
}

fn tcp_peer(
    image: &Image,
    id: FileId,
    socket: &InetSocket,
    own: &TcpConnection,
    peer: FileId,
    tell: &mut dyn FnMut(String),
) {
    let other = file_entry(peer);
    same_network(image, id, peer, "link: connected", tell);
    let there = inet_at(image, peer);
    match there.map(|there| &there.link) {
        Some(InetLink::Listening(listening)) if listening.clients().any(|client| client == id) => {}
        Some(InetLink::Connected(back)) if back.peer == Some(id) => {
            let local = there.and_then(|there| there.local);
            if local.map(plain) != Some(plain(own.remote)) || socket.local.map(plain) != Some(plain(back.remote)) {
                tell(format!("link: connected: its addresses are not those of {other}, turned round"));
            }
        }
        _ => tell(format!("link: connected: {other} is not connected to it")),
    }
}

fn netlink(socket: &NetlinkSocket, tell: &mut dyn FnMut(String)) {
    options(&socket.options, tell);
    if socket.groups.first() == Some(&0) || !socket.groups.is_sorted_by(|one, next| one < next) {
        tell("groups: they are counted from 1, each once and in ascending order".to_owned());
    }
    if !matches!(socket.destination.groups.count_ones(), 0 | 1) {
        tell("destination: groups: a socket sends to one group".to_owned());
    }
    if socket.port == 0 && (socket.destination.port, socket.destination.groups) != (0, 0) {
        tell("destination: only a socket that is bound to a port has one".to_owned());
    }
}

/// An address without the wrapping that a socket of version 6 has for those of version 4.
fn plain(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

fn options(options: &SocketOptions, tell: &mut dyn FnMut(String)) {
    let mut seen = BTreeSet::new();
    for option in &options.numbers {
        if known_option(&option.name).is_none() {
            tell(format!("options: {:?} is none that is carried", option.name));
        } else if !seen.insert(&option.name) {
            tell(format!("options: {} stands there twice", option.name));
        }
    }
    let longest = u64::try_from(i64::MAX).unwrap_or(u64::MAX);
    if options.receive_timeout_us.max(options.send_timeout_us) > longest {
        tell("options: a time limit is below 2^63 microseconds".to_owned());
    }
    if options.linger.is_some_and(|seconds| i32::try_from(seconds).is_err()) {
        tell("options: linger: it is below 2^31 seconds".to_owned());
    }
    // What else is wrong with a program the kernel tells, before any process is made.
    if let Some(Blob(program)) = &options.filter
        && (program.is_empty() || program.len() % 8 != 0 || program.len() / 8 > INSTRUCTIONS_LIMIT)
    {
        let bytes = program.len();
        tell(format!("options: filter: {bytes} bytes are not 1 to {INSTRUCTIONS_LIMIT} instructions of 8"));
    }
}

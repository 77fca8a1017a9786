//! From the answers of the duplicates to the records.

use super::tcp::{self, Info};
use crate::failure::{Doing, Failure};
use crate::resource::descriptor::holders::Kernel;
use crate::resource::descriptor::refused::Refusal;
use crate::resource::loopback::settle;
use crate::resource::socket::address::{ip, plain};
use crate::resource::socket::capture::{self as common, Socket, Usual};
use crate::resource::socket::inside;
use crfs_kstate::PendingTcp;
use crfs_sys::socket_options::{get_number, own_address, peer_address, set_number};
use crfs_sys::socket_queue::{Condition, condition, peek, receivable, unacknowledged};
use image_format::FileId;
use image_format::files::FileKind;
use image_format::socket::{Datagram, InetLink, InetSocket, SocketStyle, TcpConnection};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

/// The largest datagram of UDP, with room to spare.
const LARGEST_DATAGRAM: usize = 1 << 16;

/// A connection, whose ends may have told each other that no more comes.
const CONNECTED: [u8; 6] =
    [tcp::ESTABLISHED, tcp::FIN_WAIT1, tcp::FIN_WAIT2, tcp::CLOSING, tcp::CLOSE_WAIT, tcp::LAST_ACK];
/// The program has ended what it sends. The other end may not have heard of it yet: its window is closed, or it is just being told.
const SEND_SHUT: [u8; 4] = [tcp::FIN_WAIT1, tcp::FIN_WAIT2, tcp::CLOSING, tcp::LAST_ACK];
/// The other end has told that no more comes.
const HEARD_THE_END: [u8; 3] = [tcp::CLOSING, tcp::CLOSE_WAIT, tcp::LAST_ACK];

type Captured = (FileKind, Vec<u8>);
pub(super) type Point = (IpAddr, u16);

/// Whether it is a TCP or UDP socket.
pub(in crate::resource) fn is_one(socket: &Socket<'_>) -> bool {
    matches!(socket.family, libc::AF_INET | libc::AF_INET6)
        && matches!(
            (socket.style, socket.protocol),
            (Some(SocketStyle::Stream), libc::IPPROTO_TCP) | (Some(SocketStyle::Datagram), libc::IPPROTO_UDP)
        )
}

/// Captures the TCP and UDP sockets of one network, all at once: they name each other. `host` is a process that is in it, as the host numbers it.
/// Without `kernel` the tasks run, and no queue is looked at.
///
/// # Errors
/// When a socket cannot be asked.
pub(in crate::resource) fn capture(
    sockets: &[Socket<'_>],
    host: i32,
    kernel: Option<&Kernel<'_>>,
    usual: &mut Usual,
) -> Result<Vec<Result<Captured, Refusal>>, Failure> {
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let host_network = inside::shares_network(host)?;
    let look = || World::look(sockets, host_network, kernel);
    let world = settle(look, World::is_settled).doing(|| "asking TCP and UDP sockets for their addresses")?;
    let mut captured = Vec::with_capacity(sockets.len());
    for (socket, asked) in sockets.iter().zip(&world.all) {
        let what = describe(asked);
        let refused = common::refused(socket, &what).doing(|| format!("{what}: asking for its options"))?;
        captured.push(match refused {
            Some(refusal) => Err(refusal),
            None => world.one(socket, asked, &what, usual)?,
        });
    }
    Ok(captured)
}

/// What a socket answers.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    stream: bool,
    pub(super) local: Option<SocketAddr>,
    remote: Option<SocketAddr>,
    info: Option<Info>,
    /// Bytes that the other end has not acknowledged.
    unacknowledged: u64,
    condition: Condition,
}

impl Asked {
    fn ask(socket: &Socket<'_>) -> nix::Result<Self> {
        let fd = socket.ask();
        let stream = socket.style == Some(SocketStyle::Stream);
        let local = ip(&own_address(fd)?).filter(|address| address.port() != 0);
        let remote = match peer_address(fd) {
            Err(Errno::ENOTCONN) => None,
            other => ip(&other?),
        };
        let info = if stream { Some(tcp::info(fd)?) } else { None };
        let listens = info.is_some_and(|info| info.state == tcp::LISTEN);
        let unacknowledged = if stream && !listens { unacknowledged(fd)? } else { 0 };
        Ok(Asked { stream, local, remote, info, unacknowledged, condition: condition(fd)? })
    }

    /// Whether it will be otherwise in a moment.
    fn is_moving(&self) -> bool {
        const STILL: [u8; 5] = [tcp::ESTABLISHED, tcp::FIN_WAIT2, tcp::CLOSE, tcp::CLOSE_WAIT, tcp::LISTEN];
        self.unacknowledged > 0 || self.info.is_some_and(|info| !STILL.contains(&info.state))
    }

    pub(super) fn points(&self) -> Option<(Point, Point)> {
        Some((plain(self.local?), plain(self.remote?)))
    }

    pub(super) fn is_stream(&self) -> bool {
        self.stream
    }

    pub(super) fn is_in(&self, state: u8) -> bool {
        self.info.is_some_and(|info| info.state == state)
    }
}

/// What a socket is called in messages.
fn describe(asked: &Asked) -> String {
    let protocol = if asked.stream { "TCP" } else { "UDP" };
    match (asked.local, asked.remote) {
        (Some(local), _) if asked.is_in(tcp::LISTEN) => format!("a TCP socket listening on {local}"),
        (Some(local), Some(remote)) => format!("a {protocol} connection from {local} to {remote}"),
        (Some(local), None) => format!("a {protocol} socket bound to {local}"),
        (None, _) => format!("a {protocol} socket that is not bound"),
    }
}

/// The connections that wait in a listening socket. None: it does not listen, or there are none.
fn waiting(socket: &Socket<'_>, asked: &Asked, kernel: &Kernel<'_>) -> Option<Result<Vec<PendingTcp>, String>> {
    let waits = asked.is_in(tcp::LISTEN) && asked.info.is_some_and(|info| info.waiting > 0);
    waits.then(|| kernel.pending_tcp(socket.ask().as_raw_fd()))
}

pub(super) struct World<'a> {
    pub(super) sockets: &'a [Socket<'a>],
    pub(super) all: Vec<Asked>,
    pub(super) host_network: bool,
    pub(super) frozen: bool,
    /// The connections that wait in each listening socket, or why that cannot be told. Empty where tasks run.
    pub(super) waiting: BTreeMap<FileId, Result<Vec<PendingTcp>, String>>,
}

impl<'a> World<'a> {
    fn look(sockets: &'a [Socket<'a>], host_network: bool, kernel: Option<&Kernel<'_>>) -> nix::Result<Self> {
        let all = sockets.iter().map(Asked::ask).collect::<nix::Result<Vec<Asked>>>()?;
        let waiting = |(socket, asked): (&Socket<'_>, &Asked)| Some((socket.id, waiting(socket, asked, kernel?)?));
        let waiting = sockets.iter().zip(&all).filter_map(waiting).collect();
        Ok(World { sockets, all, host_network, frozen: kernel.is_some(), waiting })
    }

    /// Whether nothing will be otherwise in a moment.
    fn is_settled(&self) -> bool {
        !self.frozen || !(self.all.iter().any(Asked::is_moving) || self.is_connecting())
    }

    fn one(
        &self,
        socket: &Socket<'_>,
        asked: &Asked,
        what: &str,
        usual: &mut Usual,
    ) -> Result<Result<Captured, Refusal>, Failure> {
        if asked.condition.failed {
            return Ok(Err(common::has_error(what)));
        }
        let style = if asked.stream { SocketStyle::Stream } else { SocketStyle::Datagram };
        let (link, mut queued) = match self.link(socket.id, asked, what) {
            Ok(link) => link,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let doing = || format!("{what}: looking at what waits in it");
        let mut record = InetSocket {
            style,
            ipv6: socket.family == libc::AF_INET6,
            local: asked.local,
            link,
            uid: socket.seen.metadata.uid(),
            gid: socket.seen.metadata.gid(),
            options: usual.options(socket, style)?,
            congestion: asked.stream.then(|| tcp::congestion(socket.ask())).transpose().doing(doing)?,
            received: 0,
            unsent: 0,
            datagrams: Vec::new(),
        };
        if self.frozen && matches!(record.link, InetLink::Connected(_) | InetLink::Ended) {
            queued = received(socket).doing(doing)?;
            record.received = queued.len() as u64;
            if record.received != receivable(socket.ask()).doing(doing)? {
                return Ok(Err(Refusal::new(
                    format!("{what} has urgent data (MSG_OOB) and cannot be carried"),
                    "Try again when the program has read it.",
                )));
            }
            record.unsent = asked.unacknowledged;
            if record.unsent > 0 {
                let length = usize::try_from(record.unsent).unwrap_or(usize::MAX);
                let unsent = tcp::look_at_unsent(socket.ask(), length).doing(doing)?;
                record.unsent = unsent.len() as u64;
                queued.extend(unsent);
            }
        }
        if self.frozen && !asked.stream {
            for (datagram, bytes) in datagrams(socket).doing(doing)? {
                record.datagrams.push(datagram);
                queued.extend(bytes);
            }
            if let Some(far) = record.datagrams.iter().find(|one| self.host_network && !one.from.ip().is_loopback()) {
                return Ok(Err(Refusal::new(
                    format!("{what} holds a datagram from {}, outside the container, and cannot be carried", far.from),
                    "Try again when the program has read it.",
                )));
            }
        }
        Ok(Ok((FileKind::InetSocket(record.into()), queued)))
    }

    /// What it is connected to. Of a listening socket also the bytes that wait in connections.
    fn link(&self, id: FileId, asked: &Asked, what: &str) -> Result<(InetLink, Vec<u8>), Refusal> {
        let Some(info) = asked.info else {
            return Ok((asked.remote.map_or(InetLink::Unconnected, InetLink::Directed), Vec::new()));
        };
        if info.state == tcp::LISTEN {
            let (listening, bytes) = self.listening(id, info, what)?;
            return Ok((InetLink::Listening(listening), bytes));
        }
        self.stream(id, asked, info, what).map(|link| (link, Vec::new()))
    }

    fn stream(&self, id: FileId, asked: &Asked, info: Info, what: &str) -> Result<InetLink, Refusal> {
        match (info.state, asked.remote) {
            // The end of data has come, or it is a socket that was never connected.
            (tcp::CLOSE, _) if asked.condition.ended => Ok(InetLink::Ended),
            (tcp::CLOSE, _) => Ok(InetLink::Unconnected),
            (state, Some(remote)) if CONNECTED.contains(&state) => {
                self.connection(id, asked, info, remote, what).map(InetLink::Connected)
            }
            _ => Err(in_between(what)),
        }
    }

    fn connection(
        &self,
        id: FileId,
        asked: &Asked,
        info: Info,
        remote: SocketAddr,
        what: &str,
    ) -> Result<TcpConnection, Refusal> {
        let mirrored = |other: &(&Socket<'_>, &Asked)| {
            let turned = other.1.points().map(|(local, remote)| (remote, local));
            other.0.id != id && other.1.stream && turned == asked.points()
        };
        let peer = self.sockets.iter().zip(&self.all).find(mirrored).map(|(socket, _)| socket.id);
        let peer = peer.or_else(|| self.waits_at(asked));
        // The other end is closed and has told so; with a network of its own nobody outside can be that end.
        let closed = info.state == tcp::CLOSE_WAIT && asked.unacknowledged == 0 && !self.host_network;
        // The listening socket is to hear of it yet, or has no room.
        if peer.is_none() && info.state == tcp::ESTABLISHED && self.listener(asked).is_some() {
            return Err(in_between(what));
        }
        if peer.is_none() && !closed {
            return Err(Refusal::new(
                format!("{what} has its other end outside the container, and cannot be carried"),
                "Run both sides of the connection in the container, or have the program close its connections before the freeze.",
            ));
        }
        // Shut for receiving although the other end has not ended its data: by the program.
        let receive_shut = asked.condition.ended && !HEARD_THE_END.contains(&info.state);
        Ok(TcpConnection {
            remote,
            peer,
            send_shut: SEND_SHUT.contains(&info.state),
            receive_shut,
            advertised_mss: info.advertised_mss,
            window_scale: info.window_scale,
            sack: info.sack,
            timestamps: info.timestamps,
        })
    }
}

fn in_between(what: &str) -> Refusal {
    Refusal::new(format!("{what} is being opened or closed at this moment, and cannot be carried"), "Try again.")
}

/// What a connection has received, and leaves it there. SO_PEEK_OFF, from which a look would begin, is as before afterwards.
fn received(socket: &Socket<'_>) -> nix::Result<Vec<u8>> {
    const FROM_THE_START: i32 = -1;
    let length = usize::try_from(receivable(socket.ask())?).map_err(|_| Errno::EOVERFLOW)?;
    if length == 0 {
        return Ok(Vec::new());
    }
    let option = |value| set_number(socket.ask(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, value);
    // Before 6.9 TCP has none.
    let before = get_number(socket.ask(), libc::SOL_SOCKET, libc::SO_PEEK_OFF).unwrap_or(FROM_THE_START);
    if before != FROM_THE_START {
        option(FROM_THE_START)?;
    }
    let looked = peek(socket.ask(), length).map(|message| message.data);
    if before != FROM_THE_START {
        option(before)?;
    }
    looked
}

/// Every datagram that waits, by SO_PEEK_OFF, which is as before afterwards.
fn datagrams(socket: &Socket<'_>) -> nix::Result<Vec<(Datagram, Vec<u8>)>> {
    let option = |value| set_number(socket.ask(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, value);
    let before = get_number(socket.ask(), libc::SOL_SOCKET, libc::SO_PEEK_OFF)?;
    option(0)?;
    let mut found = Vec::new();
    let looked = loop {
        match peek(socket.ask(), LARGEST_DATAGRAM) {
            Ok(message) => {
                let Some(from) = ip(&message.from) else { break Err(Errno::EPROTO) };
                found.push((Datagram { length: message.data.len() as u64, from }, message.data));
            }
            Err(Errno::EAGAIN) => break Ok(()),
            Err(errno) => break Err(errno),
        }
    };
    option(before)?;
    looked.map(|()| found)
}

//! Sockets, as entries of `files/`: what they are bound and connected to, what is queued in them, and their options.
//!
//! The bytes that are queued in a socket lie beside its entry, in `files/ID.queue` (raw), in the order of the record's messages; there is
//! no such file where nothing is queued.

use crate::types::{Blob, Bytes, FileId, Octal, Pid};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// How a socket passes data on (socket(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
#[serde(rename_all = "snake_case")]
pub enum SocketStyle {
    /// SOCK_STREAM: bytes.
    Stream,
    /// SOCK_DGRAM: messages.
    Datagram,
    /// SOCK_SEQPACKET: messages over a connection.
    Seqpacket,
}

/// A socket of the family AF_UNIX.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixSocket {
    /// Stream, datagram or seqpacket.
    pub style: SocketStyle,
    /// What bind(2) gave it, or the listening socket it was accepted from; None without a name.
    pub name: Option<UnixName>,
    /// What it is connected to.
    pub link: UnixLink,
    /// Nothing is received any more.
    pub receive_shut: bool,
    /// Nothing is sent any more.
    pub send_shut: bool,
    /// SO_PEERCRED, of a listening socket who listens; None where there is nobody, and for datagram sockets.
    pub peer: Option<SocketCredentials>,
    /// Owner of the socket's inode.
    pub uid: u32,
    /// Group of the socket's inode.
    pub gid: u32,
    /// Its options.
    pub options: SocketOptions,
    /// What waits to be received, first in first.
    pub queued: Vec<UnixMessage>,
}

/// The name of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UnixName {
    /// In the abstract name space, without the NUL in front.
    Abstract(Bytes),
    /// A path. May be edited.
    Path(UnixPath),
    /// That of the listening socket it was accepted from, which is this entry.
    Accepted(FileId),
    /// A path at which its file does not stand any more: it was deleted, or belonged to a listening socket that is gone.
    FormerPath(Bytes),
    /// A name in the abstract name space that belonged to a listening socket that is gone.
    FormerAbstract(Bytes),
}

/// A path that a socket is bound to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixPath {
    /// As bind(2) was given it: inside the container.
    pub path: Bytes,
    /// The directory that a relative path starts from.
    pub directory: Option<Bytes>,
    /// What stands there.
    pub file: UnixFile,
}

/// The socket file of a bound socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixFile {
    /// Permission bits.
    pub mode: Octal,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a Unix socket is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UnixLink {
    /// Nothing.
    Unconnected,
    /// listen(2).
    Listening(UnixListening),
    /// The socket of this entry.
    Connected(FileId),
    /// A socket that was closed since.
    Closed(UnixClosed),
    /// A socket outside of the container, to which a restore connects anew.
    External(UnixExternal),
}

/// A socket outside of the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixExternal {
    /// The path that leads to it, inside the container, or `@` and its name in the abstract name space. May be edited.
    pub path: Bytes,
}

/// A listening Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixListening {
    /// As listen(2) was given it.
    pub backlog: u32,
    /// The connections that wait for accept(2), in their order.
    pub pending: Vec<UnixPending>,
}

/// A connection that waits for accept(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixPending {
    /// The client; None when it was closed since.
    pub client: Option<FileId>,
    /// Who connected: SO_PEERCRED of what accept(2) will return.
    pub connected: SocketCredentials,
    /// What the client has sent, first in first; the bytes lie beside the listening socket's entry.
    pub queued: Vec<UnixMessage>,
}

/// What remains of a connection whose other end was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixClosed {
    /// It was closed with data unread, which the next call is to be told (ECONNRESET).
    pub reset: bool,
}

/// Who is at the other end, or sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketCredentials {
    /// Inside the container; 0 for a process that has ended.
    pub pid: Pid,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A message in the queue of a Unix socket; of a stream, bytes that came with the same credentials and at most the first of
/// them with descriptors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnixMessage {
    /// Bytes.
    pub length: u64,
    /// The named datagram socket it was sent from.
    pub from: Option<FileId>,
    /// SCM_CREDENTIALS, where the receiver asks for them.
    pub credentials: Option<SocketCredentials>,
    /// SCM_RIGHTS: the descriptions it carries.
    pub files: Vec<FileId>,
}

/// A TCP or UDP socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InetSocket {
    /// Stream: TCP. Datagram: UDP.
    pub style: SocketStyle,
    /// AF_INET6; it may have IPv4 addresses too (ipv6(7)).
    pub ipv6: bool,
    /// Its own address; None without a port. May be edited.
    pub local: Option<SocketAddr>,
    /// What it is connected to.
    pub link: InetLink,
    /// Owner of the socket's inode.
    pub uid: u32,
    /// Group of the socket's inode.
    pub gid: u32,
    /// Its options.
    pub options: SocketOptions,
    /// TCP_CONGESTION of a TCP socket.
    pub congestion: Option<String>,
    /// Bytes that a TCP connection has received and its program has not.
    pub received: u64,
    /// Bytes that were given to a TCP connection and have not arrived at its other end; they follow those received in the raw file.
    pub unsent: u64,
    /// Datagrams that wait to be received, first in first.
    pub datagrams: Vec<Datagram>,
}

/// What a TCP or UDP socket is connected to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum InetLink {
    /// Nothing.
    Unconnected,
    /// listen(2).
    Listening(InetListening),
    /// A UDP socket that takes from and sends to one address.
    Directed(SocketAddr),
    /// A TCP connection.
    Connected(TcpConnection),
    /// A TCP connection that has ended both ways, with what it received.
    Ended,
}

/// A listening TCP socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InetListening {
    /// As listen(2) was given it.
    pub backlog: u32,
    /// The connections that wait for accept(2), in their order.
    pub pending: Vec<InetPending>,
}

/// A TCP connection that waits for accept(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InetPending {
    /// Who connected.
    pub client: InetClient,
    /// Bytes that have arrived; they lie beside the listening socket's entry.
    pub received: u64,
}

/// The client of a connection that waits for accept(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum InetClient {
    /// The socket of this entry.
    Open(FileId),
    /// One that was closed since.
    Closed(ClosedClient),
}

/// A client that connected and was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClosedClient {
    /// Its address. May be edited.
    pub from: SocketAddr,
    /// The one that it connected to. May be edited, with that of the listening socket.
    pub to: SocketAddr,
}

/// A TCP connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpConnection {
    /// Its other end's address.
    pub remote: SocketAddr,
    /// Its other end; None when that was closed.
    pub peer: Option<FileId>,
    /// It has sent the end of its data (shutdown(2)).
    pub send_shut: bool,
    /// Its program receives no more (shutdown(2) with SHUT_RD).
    pub receive_shut: bool,
    /// The largest segment it told the other end to send, in bytes.
    pub advertised_mss: u32,
    /// The window's scale that it uses for what it tells; None without scaling.
    pub window_scale: Option<u8>,
    /// Selective acknowledgements.
    pub sack: bool,
    /// Timestamps.
    pub timestamps: bool,
}

/// A datagram in the queue of a UDP socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datagram {
    /// Bytes.
    pub length: u64,
    /// Where it came from.
    pub from: SocketAddr,
}

/// A netlink socket, in which nothing waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetlinkSocket {
    /// What it talks to.
    pub protocol: NetlinkProtocol,
    /// SOCK_RAW in the place of SOCK_DGRAM, which makes no difference but to who asks.
    pub raw: bool,
    /// The port id it is bound to; 0 when it is not.
    pub port: u32,
    /// The multicast groups it is a member of, ascending, from 1 on.
    pub groups: Vec<u32>,
    /// What connect(2) gave it.
    pub destination: NetlinkDestination,
    /// Owner of the socket's inode.
    pub uid: u32,
    /// Group of the socket's inode.
    pub gid: u32,
    /// Its options.
    pub options: SocketOptions,
}

/// Netlink protocols for which the kernel keeps nothing of a socket but its memberships (netlink(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetlinkProtocol {
    /// NETLINK_ROUTE: interfaces, addresses, routes.
    Route,
    /// NETLINK_USERSOCK: between programs.
    Usersock,
    /// NETLINK_SOCK_DIAG: questions about sockets.
    SockDiag,
    /// NETLINK_AUDIT: messages for the audit log.
    Audit,
    /// NETLINK_KOBJECT_UEVENT: news of devices.
    KobjectUevent,
}

/// Where a netlink socket sends what names no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetlinkDestination {
    /// Port id; 0 for the kernel.
    pub port: u32,
    /// `nl_groups`: the bit of a multicast group, or 0.
    pub groups: u32,
}

/// The options of a socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketOptions {
    /// Those that are a number and differ from a new socket's, in the order of [`OPTIONS`].
    pub numbers: Vec<SocketOption>,
    /// SO_RCVTIMEO, microseconds; 0 without limit.
    pub receive_timeout_us: u64,
    /// SO_SNDTIMEO, microseconds; 0 without limit.
    pub send_timeout_us: u64,
    /// SO_LINGER, seconds.
    pub linger: Option<u32>,
    /// SO_ATTACH_FILTER: a classic BPF program, `struct sock_filter` of 8 bytes each.
    pub filter: Option<Blob>,
}

/// An option that is a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SocketOption {
    /// As the man pages have it.
    pub name: String,
    /// What getsockopt(2) says.
    pub value: i32,
}

/// An option that is a number, and how the kernel calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownOption {
    /// As the man pages have it.
    pub name: &'static str,
    /// SOL_SOCKET, IPPROTO_IP, ...
    pub level: i32,
    /// Its number at that level.
    pub number: i32,
    /// Whether it decides what bind(2) takes or what a connection becomes, and must be set first.
    pub first: bool,
}

macro_rules! options {
    ($($level:literal: $($name:ident $number:literal $($first:ident)?),*;)*) => {
        &[$($(KnownOption {
            name: stringify!($name), level: $level, number: $number, first: options!(@ $($first)?),
        }),*),*]
    };
    (@ first) => { true };
    (@) => { false };
}

/// The options that are recorded, by level (socket(7), ip(7), ipv6(7), tcp(7), udp(7), netlink(7);
/// include/uapi/asm-generic/socket.h and include/uapi/linux/{in,in6,tcp,udp,netlink}.h, v6.18). What the kernel adjusts by itself (TCP_QUICKACK, SO_INCOMING_CPU) is not among them.
pub const OPTIONS: &[KnownOption] = options! {
    1: SO_REUSEADDR 2 first, SO_DONTROUTE 5, SO_BROADCAST 6, SO_SNDBUF 7 first, SO_RCVBUF 8 first, SO_KEEPALIVE 9, SO_OOBINLINE 10,
        SO_NO_CHECK 11, SO_PRIORITY 12, SO_REUSEPORT 15 first, SO_PASSCRED 16, SO_RCVLOWAT 18, SO_TIMESTAMP 29, SO_PASSSEC 34,
        SO_TIMESTAMPNS 35, SO_MARK 36 first, SO_RXQ_OVFL 40, SO_PEEK_OFF 42, SO_LOCK_FILTER 44, SO_ZEROCOPY 60, SO_BUF_LOCK 72, SO_PASSPIDFD 76,
        SO_PASSRIGHTS 83;
    0: IP_TOS 1, IP_TTL 2, IP_PKTINFO 8, IP_MTU_DISCOVER 10, IP_RECVERR 11, IP_RECVTTL 12, IP_RECVTOS 13, IP_FREEBIND 15 first,
        IP_TRANSPARENT 19 first, IP_RECVORIGDSTADDR 20, IP_MINTTL 21, IP_BIND_ADDRESS_NO_PORT 24 first, IP_MULTICAST_TTL 33,
        IP_MULTICAST_LOOP 34, IP_MULTICAST_ALL 49;
    41: IPV6_UNICAST_HOPS 16, IPV6_MULTICAST_HOPS 18, IPV6_MULTICAST_LOOP 19, IPV6_MTU_DISCOVER 23, IPV6_RECVERR 25,
        IPV6_V6ONLY 26 first, IPV6_RECVPKTINFO 49, IPV6_RECVHOPLIMIT 51, IPV6_RECVTCLASS 66, IPV6_TCLASS 67,
        IPV6_TRANSPARENT 75 first, IPV6_FREEBIND 78 first;
    6: TCP_NODELAY 1, TCP_CORK 3, TCP_KEEPIDLE 4, TCP_KEEPINTVL 5, TCP_KEEPCNT 6, TCP_SYNCNT 7, TCP_LINGER2 8, TCP_DEFER_ACCEPT 9,
        TCP_THIN_LINEAR_TIMEOUTS 16, TCP_USER_TIMEOUT 18, TCP_FASTOPEN 23, TCP_NOTSENT_LOWAT 25, TCP_INQ 36;
    17: UDP_CORK 1, UDP_SEGMENT 103, UDP_GRO 104;
    270: NETLINK_PKTINFO 3, NETLINK_BROADCAST_ERROR 4, NETLINK_NO_ENOBUFS 5, NETLINK_LISTEN_ALL_NSID 8, NETLINK_CAP_ACK 10,
        NETLINK_EXT_ACK 11, NETLINK_GET_STRICT_CHK 12;
};

/// The option of this name.
#[must_use]
pub fn known_option(name: &str) -> Option<KnownOption> {
    OPTIONS.iter().find(|known| known.name == name).copied()
}

impl SocketOptions {
    /// The value of an option that differs from a new socket's.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<i32> {
        self.numbers.iter().find(|option| option.name == name).map(|option| option.value)
    }
}

impl UnixSocket {
    /// All messages whose bytes lie in the raw file beside it, in their order there: its own; of a listening socket those of the
    /// connections that wait.
    pub fn messages(&self) -> impl Iterator<Item = &UnixMessage> {
        let pending = match &self.link {
            UnixLink::Listening(listening) => listening.pending.as_slice(),
            _ => &[],
        };
        self.queued.iter().chain(pending.iter().flat_map(|pending| &pending.queued))
    }

    /// Bytes in the raw file beside it.
    #[must_use]
    pub fn queue_size(&self) -> u64 {
        self.messages().fold(0, |sum, message| sum.saturating_add(message.length))
    }
}

impl InetListening {
    /// The entries of the clients that are open.
    pub fn clients(&self) -> impl Iterator<Item = FileId> {
        self.pending.iter().filter_map(|pending| match pending.client {
            InetClient::Open(client) => Some(client),
            InetClient::Closed(_) => None,
        })
    }
}

impl InetSocket {
    /// Bytes in the raw file beside it.
    #[must_use]
    pub fn queue_size(&self) -> u64 {
        let pending = match &self.link {
            InetLink::Listening(listening) => listening.pending.as_slice(),
            _ => &[],
        };
        let pending = pending.iter().fold(0, |sum: u64, pending| sum.saturating_add(pending.received));
        let stream = pending.saturating_add(self.received).saturating_add(self.unsent);
        self.datagrams.iter().fold(stream, |sum, datagram| sum.saturating_add(datagram.length))
    }
}

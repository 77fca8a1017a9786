//! Netlink sockets.
//!
//! **What it is.** A place where a program asks the kernel (about interfaces, other sockets, ...) and hears its news: what is sent to
//! the multicast groups that it is a member of.
//!
//! **Where the kernel keeps it.** `struct netlink_sock`: <https://elixir.bootlin.com/linux/v6.18/source/net/netlink/af_netlink.h>.
//!
//! **How it is read.** By questions to a duplicate: port id, memberships (NETLINK_LIST_MEMBERSHIPS), options. Whether anything waits in it
//! poll(2) tells, which changes nothing. While a listing goes on, a part of it always waits.
//!
//! **How it is made again.** In the worker, in the container's network, with the same port id and memberships. What the kernel tells meanwhile
//! is not heard, as by a program that does not run.
//!
//! **What is refused.** Messages that wait: they are of another moment, and nobody could send them again; protocols whose kernel side may
//! keep more of a socket than its memberships (NETLINK_GENERIC, NETLINK_NETFILTER, ...); NETLINK_AUDIT in the host's pid namespace, where its
//! socket may be the one that the audit daemon has.

mod capture;
mod restore;

pub(super) use capture::{capture, is_one};
pub(super) use restore::restore;

use image_format::socket::NetlinkProtocol;
use nix::sys::socket::SockProtocol;

/// `SOL_NETLINK`
const LEVEL: i32 = libc::SOL_NETLINK;

/// What is carried, with the name that the manual has for it.
const PROTOCOLS: [(NetlinkProtocol, SockProtocol, &str); 5] = [
    (NetlinkProtocol::Route, SockProtocol::NetlinkRoute, "NETLINK_ROUTE"),
    (NetlinkProtocol::Usersock, SockProtocol::NetlinkUserSock, "NETLINK_USERSOCK"),
    (NetlinkProtocol::SockDiag, SockProtocol::NetlinkSockDiag, "NETLINK_SOCK_DIAG"),
    (NetlinkProtocol::Audit, SockProtocol::NetlinkAudit, "NETLINK_AUDIT"),
    (NetlinkProtocol::KobjectUevent, SockProtocol::NetlinkKObjectUEvent, "NETLINK_KOBJECT_UEVENT"),
];

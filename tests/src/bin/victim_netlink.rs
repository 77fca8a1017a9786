//! Netlink sockets: bound and not, with memberships below and beyond the 32 that an address can say, a destination, options.
//!
//! With the argument `unread` the answer to a question waits in one all the time.

use anyhow::{Context, Result, ensure};
use crfs_sys::socket_options::{attach_filter, filter, get, get_number, set_number};
use crfs_tests::victim::{self, Stage};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, getpeername, getsockname,
    recvfrom, send, sendto, socket,
};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;

/// Groups of NETLINK_ROUTE of which no news come here.
const NEAR: u32 = 20;
const FAR: u32 = 33;
/// The group of NETLINK_KOBJECT_UEVENT that belongs to udev.
const UDEV: u32 = 2;
/// `struct nlmsghdr` that asks for nothing (NLMSG_NOOP), and one that asks for an acknowledgement of it (NLM_F_REQUEST | NLM_F_ACK).
const NOTHING: [u8; 16] = [16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const QUESTION: [u8; 16] = [16, 0, 0, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// BPF_RET | BPF_K, 0: nothing passes.
const DROP_ALL: [u8; 8] = [6, 0, 0, 0, 0, 0, 0, 0];

fn open(protocol: SockProtocol, kind: SockType) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Netlink, kind, flags, protocol).with_context(|| format!("{protocol:?}"))
}

fn bound(protocol: SockProtocol, groups: u32) -> Result<OwnedFd> {
    let new = open(protocol, SockType::Raw)?;
    bind(new.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(new)
}

fn join(socket: &OwnedFd, group: u32) -> Result<()> {
    Ok(set_number(socket.as_fd(), libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group.cast_signed())?)
}

/// What the kernel tells of a socket.
#[derive(Debug, PartialEq)]
struct Told {
    kind: i32,
    protocol: i32,
    name: (u32, u32),
    destination: (u32, u32),
    memberships: Vec<u8>,
    options: [i32; 5],
    filter: Vec<u8>,
}

impl Told {
    fn of(socket: &OwnedFd) -> Result<Self> {
        let number = |level, option| get_number(socket.as_fd(), level, option);
        let netlink = |option| number(libc::SOL_NETLINK, option);
        let words = |address: NetlinkAddr| (address.pid(), address.groups());
        let mut memberships = vec![0; 64];
        let length = get(socket.as_fd(), libc::SOL_NETLINK, libc::NETLINK_LIST_MEMBERSHIPS, &mut memberships)?;
        memberships.truncate(length);
        // How much of it the kernel has made room for follows from what was joined before.
        while memberships.last() == Some(&0) {
            memberships.pop();
        }
        Ok(Told {
            kind: number(libc::SOL_SOCKET, libc::SO_TYPE)?,
            protocol: number(libc::SOL_SOCKET, libc::SO_PROTOCOL)?,
            name: words(getsockname(socket.as_raw_fd())?),
            destination: words(getpeername(socket.as_raw_fd())?),
            memberships,
            options: [
                netlink(libc::NETLINK_CAP_ACK)?,
                netlink(libc::NETLINK_EXT_ACK)?,
                netlink(libc::NETLINK_NO_ENOBUFS)?,
                number(libc::SOL_SOCKET, libc::SO_RCVBUF)?,
                number(libc::SOL_SOCKET, libc::SO_LOCK_FILTER)?,
            ],
            filter: filter(socket.as_fd())?,
        })
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let listener = bound(SockProtocol::NetlinkRoute, 1 << (NEAR - 1))?;
    join(&listener, FAR)?;
    for option in [libc::NETLINK_CAP_ACK, libc::NETLINK_NO_ENOBUFS] {
        set_number(listener.as_fd(), libc::SOL_NETLINK, option, 1)?;
    }
    set_number(listener.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 30_000)?;
    let sender = bound(SockProtocol::NetlinkRoute, 0)?;
    connect(sender.as_raw_fd(), &NetlinkAddr::new(0, 1 << (NEAR - 1)))?;
    // It hears nothing before it is bound, and has its memberships already.
    let unbound = open(SockProtocol::NetlinkRoute, SockType::Datagram)?;
    join(&unbound, NEAR)?;
    let diag = bound(SockProtocol::NetlinkSockDiag, 0)?;
    let audit = open(SockProtocol::NetlinkAudit, SockType::Raw)?;
    let devices = bound(SockProtocol::NetlinkKObjectUEvent, UDEV)?;
    // As udev's library does: the kernel's own messages are not for programs.
    attach_filter(devices.as_fd(), &DROP_ALL)?;
    set_number(devices.as_fd(), libc::SOL_SOCKET, libc::SO_LOCK_FILTER, 1)?;
    let ask = || sendto(diag.as_raw_fd(), &QUESTION, &NetlinkAddr::new(0, 0), MsgFlags::empty());
    let unread = stage.arguments().contains(&"unread".to_owned());
    if unread {
        ask()?;
    }
    let sockets = [&listener, &sender, &unbound, &diag, &audit, &devices];
    let told = |socket: &&OwnedFd| Told::of(socket);
    let before = sockets.iter().map(told).collect::<Result<Vec<_>>>()?;
    loop {
        // Nothing more is asked meanwhile: an answer that waits is an obstacle.
        for (socket, before) in sockets.iter().zip(&before) {
            let now = Told::of(socket)?;
            ensure!(now == *before, "{now:?} was {before:?}");
        }
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    send(sender.as_raw_fd(), &NOTHING, MsgFlags::empty())?;
    let (length, from) = receive(&listener)?;
    let from = from.map(|from| from.pid());
    ensure!((length, from) == (16, Some(before[1].name.0)), "{length} bytes came from {from:?}");
    if !unread {
        ask()?;
    }
    ensure!(receive(&diag)?.0 > 16, "the kernel does not answer");
    Ok(())
}

/// What was sent is there at once.
fn receive(socket: &OwnedFd) -> Result<(usize, Option<NetlinkAddr>)> {
    let mut message = [0; 64];
    recvfrom(socket.as_raw_fd(), &mut message).context("receiving")
}

fn main() -> ExitCode {
    victim::main(run)
}

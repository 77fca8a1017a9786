//! What sock_diag tells of Unix sockets: names, peers, pending connections.
//!
//! Source: sock_diag(7); include/uapi/linux/unix_diag.h and `net/unix/diag.c`, v6.18.

use crate::resource::socket::address::{self, Name};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use std::collections::HashMap;
use std::os::fd::AsRawFd;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 1 | 0x300;
/// `UDIAG_SHOW_` NAME, VFS, PEER, ICONS, RQLEN
const SHOW: u32 = 0x1f;
/// `struct nlmsghdr`; `struct unix_diag_msg`
const HEADER: usize = 16;
const MESSAGE: usize = 16;
/// The kernel's largest dump message (NLMSG_GOODSIZE is smaller).
const ROOM: usize = 1 << 16;

/// A socket as sock_diag shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Diag {
    /// What it is bound to, or was accepted from.
    pub(super) name: Option<Name>,
    /// The inode number of the socket file, its lower 32 bits.
    pub(super) file: Option<u32>,
    /// The inode of the socket it is connected to; 0 when that is closed, or not yet accepted.
    pub(super) peer: Option<u32>,
    /// The inodes of the clients that wait to be accepted, in their order; 0 for one that was closed.
    pub(super) pending: Vec<u32>,
    /// Of a listening socket: how many may wait.
    pub(super) backlog: u32,
    /// Nothing is received any more.
    pub(super) receive_shut: bool,
    /// Nothing is sent any more.
    pub(super) send_shut: bool,
    /// Where it was made: a process that is there, as the host numbers it.
    pub(super) network: i32,
}

/// Every Unix socket of the calling thread's network namespace, which is noted as `network`, by inode.
pub(super) fn dump(network: i32) -> nix::Result<HashMap<u64, Diag>> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let netlink = socket(AddressFamily::Netlink, SockType::Datagram, flags, SockProtocol::NetlinkSockDiag)?;
    let request = request();
    sendto(netlink.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut found = HashMap::new();
    let mut buffer = vec![0; ROOM];
    loop {
        let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while let Some((kind, body, after)) = next(rest) {
            rest = after;
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return Err(Errno::from_raw(-number(body, 0).unwrap_or(0).cast_signed())),
                SOCK_DIAG_BY_FAMILY => found.extend(parse(body, network)),
                _ => {}
            }
        }
    }
}

/// `struct nlmsghdr` and `struct unix_diag_req`
fn request() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(40u32.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([1, 0, 0, 0]); // AF_UNIX
    bytes.extend(u32::MAX.to_ne_bytes()); // all states
    bytes.extend(0u32.to_ne_bytes()); // all inodes
    bytes.extend(SHOW.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes
}

/// Type and body of the first message, and what follows it.
fn next(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(number(bytes, 0)?).ok().filter(|&length| length >= HEADER)?;
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    let body = bytes.get(HEADER..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

/// `struct unix_diag_msg` and its attributes.
fn parse(body: &[u8], network: i32) -> Option<(u64, Diag)> {
    let inode = number(body, 4)?;
    let mut diag = Diag { network, ..Diag::default() };
    let mut rest = body.get(MESSAGE..)?;
    while let Some(size) = rest.get(..2).map(|size| usize::from(u16::from_ne_bytes([size[0], size[1]]))) {
        let Some(value) = rest.get(4..size) else { break };
        // UNIX_DIAG_NAME, _VFS, _PEER, _ICONS, _RQLEN, _SHUTDOWN
        match rest[2] {
            0 => diag.name = address::name(value),
            1 => diag.file = number(value, 0),
            2 => diag.peer = number(value, 0),
            3 => diag.pending = (0..value.len()).step_by(4).filter_map(|at| number(value, at)).collect(),
            4 => diag.backlog = number(value, 4)?,
            6 => {
                let shut = value.first().copied().unwrap_or(0);
                (diag.receive_shut, diag.send_shut) = (shut & 1 != 0, shut & 2 != 0);
            }
            _ => {}
        }
        rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((inode.into(), diag))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_listener_with_a_client() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        client.shutdown(std::net::Shutdown::Read).unwrap();
        let inode = |fd: i32| std::fs::metadata(format!("/proc/self/fd/{fd}")).unwrap().ino();
        let found = dump(0).unwrap();
        let ours = &found[&inode(listener.as_raw_fd())];
        assert_eq!(ours.name, Some(Name::Path(path.to_str().unwrap().into())));
        assert_eq!(ours.pending.iter().map(|&i| u64::from(i)).collect::<Vec<_>>(), [inode(client.as_raw_fd())]);
        assert!(ours.backlog > 0 && ours.peer.is_none());
        assert_eq!(u64::from(ours.file.unwrap()), std::fs::metadata(&path).unwrap().ino() & 0xffff_ffff);
        let theirs = &found[&inode(client.as_raw_fd())];
        assert_eq!((theirs.peer, theirs.receive_shut, theirs.send_shut), (Some(0), true, false));
        let cut = [40u8, 0, 0, 0, 20, 0];
        assert!(next(&cut).is_none() && parse(&cut, 0).is_none());
    }
}

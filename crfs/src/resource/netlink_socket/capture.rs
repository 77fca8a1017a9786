//! From the answers of a duplicate to the record.

use super::{LEVEL, PROTOCOLS};
use crate::failure::{Doing, Failure};
use crate::resource::descriptor::refused::Refusal;
use crate::resource::socket::capture::{self as common, Socket, Usual};
use crfs_sys::socket_options::get;
use crfs_sys::socket_queue::condition;
use image_format::files::FileKind;
use image_format::socket::{NetlinkDestination, NetlinkProtocol, NetlinkSocket, SocketStyle};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{NetlinkAddr, getpeername, getsockname};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

/// Bytes of memberships, a bit a group: more groups than any protocol that is carried has.
const MEMBERSHIPS: usize = 512;
/// The inode of the first pid namespace (`PROC_PID_INIT_INO`, include/linux/proc_ns.h, v6.18).
const HOST_PIDS: u64 = 0xefff_fffc;

/// A record, and the bytes queued: none.
type Captured = (FileKind, Vec<u8>);

/// Whether it is a netlink socket.
pub(in crate::resource) fn is_one(socket: &Socket<'_>) -> bool {
    socket.family == libc::AF_NETLINK
}

/// Captures netlink sockets. `init` is the container's first process as the host numbers it. Unless `frozen`, it is not looked whether
/// anything waits.
///
/// # Errors
/// When a socket cannot be asked.
pub(in crate::resource) fn capture(
    sockets: &[Socket<'_>],
    init: i32,
    frozen: bool,
    usual: &mut Usual,
) -> Result<Vec<Result<Captured, Refusal>>, Failure> {
    sockets.iter().map(|socket| one(socket, init, frozen, usual)).collect()
}

fn one(socket: &Socket<'_>, init: i32, frozen: bool, usual: &mut Usual) -> Result<Result<Captured, Refusal>, Failure> {
    let Some(&(protocol, _, name)) = PROTOCOLS.iter().find(|(_, number, _)| *number as i32 == socket.protocol) else {
        return Ok(Err(Refusal::new(
            format!(
                "a netlink socket of protocol {} cannot be carried: the kernel may keep more of it than it tells",
                socket.protocol
            ),
            "Have the program close it before the freeze.",
        )));
    };
    let what = format!("a netlink socket ({name})");
    let asked = Asked::ask(socket, &what).doing(|| format!("{what}: asking what it is"))?;
    if let Some(refusal) = asked.refused {
        return Ok(Err(refusal));
    }
    if frozen && asked.holds_messages {
        return Ok(Err(Refusal::new(
            format!("{what} holds messages that its program has not read, and cannot be carried"),
            "Try again when the program has read them.",
        )));
    }
    if protocol == NetlinkProtocol::Audit && has_host_pids(init).doing(|| "looking at the container's pid namespace")? {
        return Ok(Err(Refusal::new(
            format!("{what} in the host's pid namespace may be that of the audit daemon, and cannot be carried"),
            "Have the program close it before the freeze.",
        )));
    }
    let record = NetlinkSocket {
        protocol,
        raw: socket.style.is_none(),
        port: asked.port,
        groups: asked.groups,
        destination: asked.destination,
        uid: socket.seen.metadata.uid(),
        gid: socket.seen.metadata.gid(),
        options: usual.options(socket, SocketStyle::Datagram)?,
    };
    Ok(Ok((FileKind::NetlinkSocket(record.into()), Vec::new())))
}

/// What a socket answers.
struct Asked {
    refused: Option<Refusal>,
    holds_messages: bool,
    port: u32,
    groups: Vec<u32>,
    destination: NetlinkDestination,
}

impl Asked {
    fn ask(socket: &Socket<'_>, what: &str) -> nix::Result<Self> {
        let fd = socket.ask();
        let refused = common::refused(socket, what)?;
        let failed = condition(fd)?.failed.then(|| common::has_error(what));
        let own = getsockname::<NetlinkAddr>(fd.as_raw_fd())?;
        let other = getpeername::<NetlinkAddr>(fd.as_raw_fd())?;
        Ok(Asked {
            refused: refused.or(failed),
            holds_messages: holds_messages(fd)?,
            port: own.pid(),
            groups: groups(fd)?,
            destination: NetlinkDestination { port: other.pid(), groups: other.groups() },
        })
    }
}

fn holds_messages(socket: BorrowedFd<'_>) -> nix::Result<bool> {
    let mut one = [PollFd::new(socket, PollFlags::POLLIN)];
    Ok(poll(&mut one, PollTimeout::ZERO)? > 0)
}

/// The multicast groups, counted from 1.
fn groups(socket: BorrowedFd<'_>) -> nix::Result<Vec<u32>> {
    let mut bits = [0; MEMBERSHIPS];
    let length = get(socket, LEVEL, libc::NETLINK_LIST_MEMBERSHIPS, &mut bits)?;
    // Words of 32 bits, which on this architecture are bytes in order.
    let numbers = (1..).zip(bits[..length].iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)));
    Ok(numbers.filter_map(|(number, member)| member.then_some(number)).collect())
}

/// Whether a process is in the first pid namespace. The audit daemon must be (`audit_netlink_ok`, kernel/audit.c, v6.18).
fn has_host_pids(host: i32) -> nix::Result<bool> {
    let namespace = std::fs::metadata(format!("/proc/{host}/ns/pid"));
    namespace.map(|found| found.ino() == HOST_PIDS).map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))
}

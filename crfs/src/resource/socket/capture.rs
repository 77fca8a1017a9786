//! What is asked of a socket whatever its family.

use super::network::{Network, Networks};
use super::{inside, options};
use crate::failure::{Doing, Failure};
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use crfs_sys::socket_options::get_number;
use image_format::socket::{SocketOptions, SocketStyle};
use image_format::{FileId, parallel};
use nix::errno::Errno;
use nix::sys::socket::AddressFamily;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;

const SOL_SOCKET: i32 = libc::SOL_SOCKET;

/// A socket of the container, with a duplicate of it.
#[derive(Debug)]
pub(crate) struct Socket<'a> {
    /// Its entry.
    pub(crate) id: FileId,
    /// As /proc shows it.
    pub(crate) seen: &'a Seen,
    fd: BorrowedFd<'a>,
    /// Where it was made.
    pub(crate) network: Network,
    /// A process that is there, as the host numbers it.
    pub(crate) host: i32,
    /// SO_DOMAIN.
    pub(crate) family: i32,
    /// SO_TYPE; None for one that no record has (SOCK_RAW).
    pub(crate) style: Option<SocketStyle>,
    /// SO_PROTOCOL.
    pub(crate) protocol: i32,
}

impl<'a> Socket<'a> {
    /// Duplicates a socket. None when it is gone.
    pub(crate) fn open(id: FileId, seen: &'a Seen, networks: &mut Networks<'_>) -> nix::Result<Self> {
        let fd = seen.kept()?;
        let network = networks.of_socket(fd)?;
        let ask = |option| get_number(fd, SOL_SOCKET, option);
        let style = style(ask(libc::SO_TYPE)?);
        let (family, protocol) = (ask(libc::SO_DOMAIN)?, ask(libc::SO_PROTOCOL)?);
        Ok(Socket { id, seen, fd, network, host: networks.host(network), family, style, protocol })
    }

    /// Its style; that of raw ones is nowhere recorded.
    pub(crate) fn style_or_datagram(&self) -> SocketStyle {
        self.style.unwrap_or(SocketStyle::Datagram)
    }

    /// The duplicate, for a question.
    pub(crate) fn ask(&self) -> BorrowedFd<'_> {
        self.fd
    }

    /// Inode number of the socket.
    pub(crate) fn inode(&self) -> u64 {
        self.seen.metadata.ino()
    }
}

/// SO_TYPE in the words of records.
pub(crate) fn style(kind: i32) -> Option<SocketStyle> {
    match kind {
        libc::SOCK_STREAM => Some(SocketStyle::Stream),
        libc::SOCK_DGRAM => Some(SocketStyle::Datagram),
        libc::SOCK_SEQPACKET => Some(SocketStyle::Seqpacket),
        _ => None,
    }
}

/// A duplicate of a Unix socket, with its style. None for those of other families.
pub(crate) fn unix_style(seen: &Seen) -> nix::Result<Option<(BorrowedFd<'_>, SocketStyle)>> {
    let fd = seen.kept()?;
    if get_number(fd, SOL_SOCKET, libc::SO_DOMAIN)? != libc::AF_UNIX {
        return Ok(None);
    }
    Ok(style(get_number(fd, SOL_SOCKET, libc::SO_TYPE)?).map(|style| (fd, style)))
}

/// What no socket can have, whatever its family. None: nothing stands in the way.
pub(crate) fn refused(socket: &Socket<'_>, what: &str) -> nix::Result<Option<Refusal>> {
    let fd = socket.ask();
    if socket.network == Network::Outside {
        return Ok(Some(Refusal::new(
            format!("{what} was made in a net namespace that no process of the container is in, and cannot be carried"),
            "Have the program close it before the freeze.",
        )));
    }
    if crfs_sys::socket_options::filter(fd) == Err(Errno::EACCES) {
        return Ok(Some(Refusal::new(
            format!("{what} has a filter that is a BPF program (SO_ATTACH_BPF) and cannot be carried"),
            "Have the program close it before the freeze.",
        )));
    }
    let mut interface = [0; 16];
    let length = crfs_sys::socket_options::get(fd, SOL_SOCKET, libc::SO_BINDTODEVICE, &mut interface);
    if length.is_ok_and(|length| length > 0) {
        return Ok(Some(Refusal::new(
            format!("{what} is bound to a network interface (SO_BINDTODEVICE) and cannot be carried"),
            "Have the program bind it to an address.",
        )));
    }
    Ok(None)
}

/// The refusal of a socket whose program has an error coming.
pub(crate) fn has_error(what: &str) -> Refusal {
    Refusal::new(
        format!("{what} has an error that its program has not been told yet, and cannot be carried"),
        "Try again when the program has used it.",
    )
}

/// The options of new sockets, by network and family.
#[derive(Debug, Default)]
pub(crate) struct Usual(HashMap<(i32, i32, SocketStyle), options::Usual>);

impl Usual {
    /// The options of a socket that differ from those of a new one.
    pub(crate) fn options(&mut self, socket: &Socket<'_>, style: SocketStyle) -> Result<SocketOptions, Failure> {
        options::capture(socket.ask(), self.of(socket.family, style, socket.host)?)
            .doing(|| "asking for a socket's options")
    }

    /// The same of many sockets of one family and style in the network of a process, which the host numbers so, asked by all processors.
    pub(crate) fn options_of_all(
        &mut self,
        sockets: &[BorrowedFd<'_>],
        (family, style): (i32, SocketStyle),
        host: i32,
    ) -> Result<Vec<Result<SocketOptions, Failure>>, Failure> {
        let usual = self.of(family, style, host)?;
        Ok(parallel::map(sockets, |&socket| options::capture(socket, usual).doing(|| "asking for a socket's options")))
    }

    fn of(&mut self, family: i32, style: SocketStyle, host: i32) -> Result<&options::Usual, Failure> {
        Ok(match self.0.entry((host, family, style)) {
            Entry::Occupied(usual) => usual.into_mut(),
            Entry::Vacant(place) => {
                let family = AddressFamily::from_i32(family).unwrap_or(AddressFamily::Unix);
                let ask = || options::Usual::of(family, style).doing(|| "making a socket to compare with");
                place.insert(inside::in_network(host, ask)?)
            }
        })
    }
}

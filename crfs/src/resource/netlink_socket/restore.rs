//! From the record to a socket.

use super::{LEVEL, PROTOCOLS};
use crate::failure::{Doing, Failure, Kind};
use crate::resource::socket::options;
use crfs_sys::socket_options::set_number;
use image_format::files::FileKind;
use image_format::layout::file_entry;
use image_format::socket::{NetlinkDestination, NetlinkSocket};
use image_format::{FileId, Image};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockType, bind, connect, socket};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Makes the netlink sockets of one network of an image (0: the container's own), which the calling thread is in.
///
/// # Errors
/// [`Kind::Incompatible`] where a port id is taken or a group is not there.
pub(in crate::resource) fn restore(
    image: &Image,
    network: usize,
    open: &mut BTreeMap<FileId, OwnedFd>,
) -> Result<(), Failure> {
    for (&id, file) in &image.files {
        if let FileKind::NetlinkSocket(record) = &file.kind
            && image.network_of_socket(id) == network
        {
            open.insert(id, one(id, record)?);
        }
    }
    Ok(())
}

fn one(id: FileId, record: &NetlinkSocket) -> Result<OwnedFd, Failure> {
    let object = file_entry(id);
    let kind = if record.raw { SockType::Raw } else { SockType::Datagram };
    let protocol = PROTOCOLS.iter().find(|(known, ..)| *known == record.protocol).map(|&(_, number, _)| number);
    let fd = socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, protocol)
        .doing(|| format!("{object}: making a socket"))?;
    options::restore_first(fd.as_fd(), &record.options, &object)?;
    if record.port != 0 {
        bind(fd.as_raw_fd(), &NetlinkAddr::new(record.port, 0))
            .map_err(|errno| refuse(&object, &format!("port: {}", record.port), errno))?;
    }
    for &group in &record.groups {
        set_number(fd.as_fd(), LEVEL, libc::NETLINK_ADD_MEMBERSHIP, group.cast_signed())
            .map_err(|errno| refuse(&object, &format!("groups: {group}"), errno))?;
    }
    let NetlinkDestination { port, groups } = record.destination;
    if (port, groups) != (0, 0) {
        connect(fd.as_raw_fd(), &NetlinkAddr::new(port, groups)).doing(|| format!("{object}: connecting it"))?;
    }
    options::restore_last(fd.as_fd(), &record.options, (record.uid, record.gid), &object)?;
    Ok(fd)
}

fn refuse(object: &str, what: &str, errno: Errno) -> Failure {
    Failure::new(Kind::Incompatible, format!("{object}: {what} cannot be had here: {}", errno.desc()))
}

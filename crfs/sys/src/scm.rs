//! Descriptors sent through a Unix socket: `SCM_RIGHTS`.
//!
//! Source: unix(7), cmsg(3).

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::Result;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

/// Sends a duplicate of a descriptor.
///
/// # Errors
/// Of sendmsg(2).
pub fn send(socket: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> Result<()> {
    let fds = [fd.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(b"+")], &message, MsgFlags::empty(), None).map(drop)
}

/// Receives the descriptor that was sent, close-on-exec. Does not wait.
///
/// # Errors
/// `EAGAIN` when none was sent, `ENOMSG` when something else was.
pub fn receive(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let fd = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    // SAFETY: the kernel has just made it for us, and there is room for one only.
    fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).ok_or(Errno::ENOMSG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_comes_as_a_duplicate() {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC).unwrap();
        assert_eq!(receive(other.as_fd()).unwrap_err(), Errno::EAGAIN);
        send(one.as_fd(), one.as_fd()).unwrap();
        let duplicate = receive(other.as_fd()).unwrap();
        nix::unistd::write(&duplicate, b"x").unwrap();
        assert_eq!(receive(other.as_fd()).unwrap_err(), Errno::ENOMSG);
    }
}

//! Messages that carry a descriptor along.
//!
//! Source: unix(7), SCM_RIGHTS; cmsg(3).

use nix::Result;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Sends bytes, at least one, and a duplicate of a descriptor with them.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights: Vec<_> = fd.iter().map(|_| ControlMessage::ScmRights(&fds)).collect();
    let sent = sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    if sent == bytes.len() { Ok(()) } else { Err(Errno::EMSGSIZE) }
}

/// Receives a message: how many bytes of it are in `buffer` now, and the descriptor that came with it, close-on-exec.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut received = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            for fd in fds {
                // SAFETY: the kernel just made this descriptor for us. There is room for one, and any other is closed.
                received = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((message.bytes, received))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::os::fd::AsFd;

    #[test]
    fn a_descriptor_comes_along() {
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        send(one.as_fd(), b"with", Some(one.as_fd())).unwrap();
        send(one.as_fd(), b"without", None).unwrap();
        let mut buffer = [0; 16];
        let (length, fd) = receive(other.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], fd.is_some()), (&b"with"[..], true));
        let (length, fd) = receive(other.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], fd.is_some()), (&b"without"[..], false));
    }
}

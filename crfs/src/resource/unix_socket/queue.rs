//! What waits in a Unix socket, looked at and left there.
//!
//! Source: unix(7) on SO_PEEK_OFF; `unix_stream_read_generic` in `net/unix/af_unix.c`, v6.18.

use crfs_sys::socket_options::{get_number, set_number};
use crfs_sys::socket_queue::{Message, peek, receivable};
use image_format::socket::SocketStyle;
use nix::Result;
use nix::errno::Errno;
use std::os::fd::BorrowedFd;

/// Room for a message at first; it is doubled for longer ones.
const ROOM: usize = 1 << 16;
/// No message of a Unix socket is longer: a send buffer has 31 bits.
const LARGEST: usize = 1 << 31;

/// Every message, first in first; of a stream, what one read would return: runs of bytes with the same credentials, which end with the
/// bytes that descriptors came with. With which of them they came no look tells, and they are sent with the run.
///
/// SO_PEEK_OFF moves along and is as before afterwards. A worker that is killed in between leaves it: it only matters to a
/// program that looks with MSG_PEEK itself.
pub(crate) fn look(socket: BorrowedFd<'_>, style: SocketStyle) -> Result<Vec<Message>> {
    let before = get_number(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF)?;
    let mut found = Vec::new();
    let looked = collect(socket, style, &mut found);
    set_number(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, before)?;
    looked.map(|()| found)
}

fn collect(socket: BorrowedFd<'_>, style: SocketStyle, found: &mut Vec<Message>) -> Result<()> {
    let mut room = ROOM;
    if style == SocketStyle::Stream {
        room = usize::try_from(receivable(socket)?).map_err(|_| Errno::EOVERFLOW)?;
    }
    let mut offset = 0;
    while room > 0 {
        match at(socket, offset, room) {
            // The end: nothing more, or for a stream that is shut down, zero bytes.
            Err(Errno::EAGAIN) => break,
            Ok(message) if message.data.is_empty() && style != SocketStyle::Datagram => break,
            Ok(message) => {
                offset += message.data.len();
                found.push(message);
            }
            Err(Errno::EMSGSIZE) if room < LARGEST => room *= 2,
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn at(socket: BorrowedFd<'_>, offset: usize, room: usize) -> Result<Message> {
    let offset = i32::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    set_number(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset)?;
    peek(socket, room)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crfs_sys::socket_queue::send;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::os::fd::AsFd;

    fn pair(kind: SockType) -> (std::os::fd::OwnedFd, std::os::fd::OwnedFd) {
        socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC).unwrap()
    }

    fn texts(found: &[Message]) -> Vec<(String, usize)> {
        found.iter().map(|m| (String::from_utf8(m.data.clone()).unwrap(), m.files.len())).collect()
    }

    #[test]
    fn a_stream_is_told_as_reads_would_return_it() {
        let (a, b) = pair(SockType::Stream);
        for (text, files) in [("one", 0), ("twotwo", 0), ("fd!", 2), ("again", 1), ("end", 0)] {
            let fds = vec![a.as_fd(); files];
            assert_eq!(send(a.as_fd(), text.as_bytes(), &fds, None, &[]), Ok(text.len()));
        }
        for _ in 0..2 {
            let found = look(b.as_fd(), SocketStyle::Stream).unwrap();
            let expected = [("onetwotwofd!", 2), ("again", 1), ("end", 0)];
            assert_eq!(texts(&found), expected.map(|(text, files)| (text.to_owned(), files)));
        }
    }

    #[test]
    fn messages_keep_their_boundaries() {
        for (kind, style) in
            [(SockType::Datagram, SocketStyle::Datagram), (SockType::SeqPacket, SocketStyle::Seqpacket)]
        {
            let (a, b) = pair(kind);
            set_number(b.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, 1).unwrap();
            let long = "x".repeat(100_000);
            for text in ["one", long.as_str(), "two"] {
                assert_eq!(send(a.as_fd(), text.as_bytes(), &[], None, &[]), Ok(text.len()));
            }
            let found = look(b.as_fd(), style).unwrap();
            assert_eq!(texts(&found), [("one".to_owned(), 0), (long, 0), ("two".to_owned(), 0)]);
            assert!(
                found
                    .iter()
                    .all(|message| message.credentials.is_some_and(|c| c.pid == nix::unistd::getpid().as_raw()))
            );
        }
    }
}

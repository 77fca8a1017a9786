//! What waits in a socket: looked at without taking it, and put there.
//!
//! Source: recvmsg(2), sendmsg(2), cmsg(3), unix(7), tcp(7).

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use nix::Result;
use nix::errno::Errno;

/// Room for SCM_MAX_FD (253) descriptors, credentials, and what else a receiver may have asked for.
const CONTROL_SIZE: usize = 2048;
/// `struct sockaddr_storage`
const ADDRESS_SIZE: usize = 128;
/// Descriptors of a message at most: SCM_MAX_FD.
const FILES_MAX: usize = 253;

mod ioctl {
    nix::ioctl_read_bad!(siocinq, libc::FIONREAD, libc::c_int);
    nix::ioctl_read_bad!(siocoutq, libc::TIOCOUTQ, libc::c_int);
}

/// Bytes that can be received: of the first message, where there are messages.
pub fn receivable(socket: BorrowedFd<'_>) -> Result<u64> {
    let mut bytes = 0;
    // SAFETY: the kernel writes one int.
    unsafe { ioctl::siocinq(socket.as_raw_fd(), &raw mut bytes) }?;
    u64::try_from(bytes).map_err(|_| Errno::EOVERFLOW)
}

/// Of a TCP socket: bytes given to it that the other end has not acknowledged.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> Result<u64> {
    let mut bytes = 0;
    // SAFETY: the kernel writes one int.
    unsafe { ioctl::siocoutq(socket.as_raw_fd(), &raw mut bytes) }?;
    u64::try_from(bytes).map_err(|_| Errno::EOVERFLOW)
}

/// What poll(2) says of a socket beside what can be received and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// POLLRDHUP: the other end has ended its data, or the own program takes no more.
    pub ended: bool,
    /// POLLERR: an error waits to be told.
    pub failed: bool,
}

/// Asks for the condition of a socket. By hand, since nix knows no POLLRDHUP.
pub fn condition(socket: BorrowedFd<'_>) -> Result<Condition> {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: the kernel reads and writes one pollfd.
    Errno::result(unsafe { libc::poll(&raw mut poll, 1, 0) })?;
    let has = |event| poll.revents & event != 0;
    Ok(Condition { ended: has(libc::POLLRDHUP), failed: has(libc::POLLERR) })
}

/// `struct ucred`: process (as the caller's pid namespace numbers it), user and group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Process.
    pub pid: i32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A message that was looked at.
#[derive(Debug, Default)]
pub struct Message {
    /// Bytes.
    pub data: Vec<u8>,
    /// The `struct sockaddr` of its sender; empty where it has none.
    pub from: Vec<u8>,
    /// SCM_RIGHTS: duplicates of what it carries, close-on-exec.
    pub files: Vec<OwnedFd>,
    /// SCM_CREDENTIALS.
    pub credentials: Option<Credentials>,
}

/// Looks at what would be received next, up to `room` bytes, and leaves it there (MSG_PEEK). Never waits: `EAGAIN` when nothing is
/// there. `EMSGSIZE`: it did not fit.
///
/// With SO_PEEK_OFF set the look moves on with each call.
pub fn peek(socket: BorrowedFd<'_>, room: usize) -> Result<Message> {
    let mut message = Message { data: vec![0; room], from: vec![0; ADDRESS_SIZE], ..Message::default() };
    // As u64: a cmsghdr must be aligned like one.
    let mut control = [0u64; CONTROL_SIZE / size_of::<u64>()];
    let mut part = libc::iovec { iov_base: message.data.as_mut_ptr().cast(), iov_len: room };
    let mut header = header(&mut part);
    header.msg_name = message.from.as_mut_ptr().cast();
    header.msg_namelen = 128;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_SIZE;
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: name, part and control are buffers of the lengths given, and outlive the call.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    let got = usize::try_from(Errno::result(got)?).map_err(|_| Errno::EOVERFLOW)?;
    // Before anything can fail: the descriptors are this process's already.
    take_control(&header, &mut message);
    message.data.truncate(got);
    message.from.truncate(header.msg_namelen as usize);
    if header.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
        return Err(Errno::EMSGSIZE);
    }
    Ok(message)
}

fn header(part: &mut libc::iovec) -> libc::msghdr {
    libc::msghdr {
        msg_name: null_mut(),
        msg_namelen: 0,
        msg_iov: part,
        msg_iovlen: 1,
        msg_control: null_mut(),
        msg_controllen: 0,
        msg_flags: 0,
    }
}

fn take_control(header: &libc::msghdr, message: &mut Message) {
    // SAFETY: the header's control buffer is as the kernel left it, and the macros stay in it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: not null: it is a whole cmsghdr in the buffer, which is aligned for it.
        let control = unsafe { *next };
        // SAFETY: as above.
        let data = unsafe { libc::CMSG_DATA(next) };
        // SAFETY: a number in, a number out.
        let length = control.cmsg_len.saturating_sub(unsafe { libc::CMSG_LEN(0) } as usize);
        // SAFETY: the kernel wrote so many bytes there.
        let data = unsafe { std::slice::from_raw_parts(data, length) };
        let number = |at: usize| data.get(at..at + 4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        match (control.cmsg_level, control.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for at in (0..length).step_by(4) {
                    // SAFETY: the kernel has just opened it for this process, and nobody else knows of it.
                    message.files.push(unsafe { OwnedFd::from_raw_fd(number(at)) });
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                let (uid, gid) = (number(4).cast_unsigned(), number(8).cast_unsigned());
                message.credentials = Some(Credentials { pid: number(0), uid, gid });
            }
            _ => {}
        }
        // SAFETY: as for the first.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
}

/// Sends bytes with descriptors and credentials, to the `struct sockaddr` `to` unless it is empty. Never waits. Returns how many
/// bytes were taken.
pub fn send(
    socket: BorrowedFd<'_>,
    data: &[u8],
    files: &[BorrowedFd<'_>],
    credentials: Option<Credentials>,
    to: &[u8],
) -> Result<usize> {
    if files.len() > FILES_MAX {
        return Err(Errno::EINVAL);
    }
    let mut part = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
    let mut header = header(&mut part);
    if !to.is_empty() {
        header.msg_name = to.as_ptr().cast_mut().cast();
        header.msg_namelen = libc::socklen_t::try_from(to.len()).map_err(|_| Errno::EINVAL)?;
    }
    let mut control = Control::default();
    if !files.is_empty() {
        control.add(libc::SCM_RIGHTS, &files.iter().map(AsRawFd::as_raw_fd).collect::<Vec<i32>>());
    }
    if let Some(Credentials { pid, uid, gid }) = credentials {
        control.add(libc::SCM_CREDENTIALS, &[pid, uid.cast_signed(), gid.cast_signed()]);
    }
    if !control.words.is_empty() {
        header.msg_control = control.words.as_mut_ptr().cast();
        header.msg_controllen = control.words.len() * size_of::<u64>();
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the kernel reads name, part and control, which are of the lengths given.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, flags) };
    usize::try_from(Errno::result(sent)?).map_err(|_| Errno::EOVERFLOW)
}

/// Control messages as they lie in memory: each begins at a multiple of 8.
#[derive(Default)]
struct Control {
    words: Vec<u64>,
}

impl Control {
    /// `struct cmsghdr` is a length of 8 bytes, and level and type of 4; the data follows.
    fn add(&mut self, kind: i32, data: &[i32]) {
        self.words.push((size_of::<libc::cmsghdr>() + size_of_val(data)) as u64);
        let pair = |low: i32, high: i32| u64::from(low.cast_unsigned()) | u64::from(high.cast_unsigned()) << 32;
        self.words.push(pair(libc::SOL_SOCKET, kind));
        self.words.extend(data.chunks(2).map(|two| pair(two[0], two.get(1).copied().unwrap_or(0))));
    }
}
const _: () = assert!(size_of::<libc::cmsghdr>() == 16);

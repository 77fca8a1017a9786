//! Options: read from a socket, compared with a new one's, and set again.
//!
//! Source: socket(7), `sk_getsockopt` and `sk_setsockopt` in `net/core/sock.c`, v6.18.

use crate::failure::{Doing, Failure, Kind};
use crfs_sys::socket_options::{attach_filter, filter, get, get_number, set, set_number};
use image_format::Blob;
use image_format::socket::{KnownOption, OPTIONS, SocketOption, SocketOptions, SocketStyle, known_option};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

const SOL_SOCKET: i32 = libc::SOL_SOCKET;
/// Microseconds of a second.
const MICROS: u64 = 1_000_000;
/// `SOCK_SNDBUF_LOCK` and `SOCK_RCVBUF_LOCK`: the program has set the size, and the kernel leaves it so.
const LOCKED: [(&str, i32); 2] = [("SO_SNDBUF", 1), ("SO_RCVBUF", 2)];

/// A new socket of a family and style, in the network of the calling thread.
pub(crate) fn fresh(family: AddressFamily, style: SocketStyle) -> nix::Result<OwnedFd> {
    let kind = match style {
        SocketStyle::Stream => SockType::Stream,
        SocketStyle::Datagram => SockType::Datagram,
        SocketStyle::Seqpacket => SockType::SeqPacket,
    };
    socket(family, kind, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// The options of a family and style, with the values that a new socket has.
#[derive(Clone, Debug)]
pub(crate) struct Usual(Vec<(KnownOption, i32)>);

impl Usual {
    /// Asks a new socket, in the network of the calling thread.
    pub(crate) fn of(family: AddressFamily, style: SocketStyle) -> nix::Result<Self> {
        let new = fresh(family, style)?;
        let mut usual = Vec::new();
        for known in OPTIONS {
            // A connection takes them from the packet that opened it, and none of them can be set.
            if known.name.contains("MULTICAST") && style == SocketStyle::Stream {
                continue;
            }
            match get_number(new.as_fd(), known.level, known.number) {
                // Not of this family, or not of this kernel.
                Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP | Errno::ENOTCONN | Errno::EINVAL) => {}
                value => usual.push((*known, value?)),
            }
        }
        Ok(Usual(usual))
    }
}

/// What differs from a new socket of the same family and style.
pub(crate) fn capture(socket: BorrowedFd<'_>, usual: &Usual) -> nix::Result<SocketOptions> {
    let locks = get_number(socket, SOL_SOCKET, libc::SO_BUF_LOCK)?;
    let mut numbers = Vec::new();
    for (known, new) in &usual.0 {
        // The kernel adjusts the size of buffers that the program has not set.
        if LOCKED.iter().any(|&(name, lock)| name == known.name && locks & lock == 0) {
            continue;
        }
        let value = match get_number(socket, known.level, known.number) {
            // Not of a socket in this state.
            Err(Errno::ENOPROTOOPT | Errno::EOPNOTSUPP | Errno::ENOTCONN | Errno::EINVAL) => continue,
            other => other?,
        };
        if *new != value {
            numbers.push(SocketOption { name: known.name.to_owned(), value });
        }
    }
    let mut linger = [0; 8];
    get(socket, SOL_SOCKET, libc::SO_LINGER, &mut linger)?;
    let [on, seconds] =
        [0, 4].map(|at| u32::from_ne_bytes([linger[at], linger[at + 1], linger[at + 2], linger[at + 3]]));
    Ok(SocketOptions {
        numbers,
        receive_timeout_us: timeout(socket, libc::SO_RCVTIMEO)?,
        send_timeout_us: timeout(socket, libc::SO_SNDTIMEO)?,
        linger: (on != 0).then_some(seconds),
        filter: match filter(socket) {
            Ok(program) if program.is_empty() => None,
            Ok(program) => Some(Blob(program)),
            // Refused already, see `capture::refused`.
            Err(Errno::EACCES) => None,
            Err(errno) => return Err(errno),
        },
    })
}

/// `struct timeval`
fn timeout(socket: BorrowedFd<'_>, option: i32) -> nix::Result<u64> {
    let mut value = [0; 16];
    get(socket, SOL_SOCKET, option, &mut value)?;
    let half = |at: usize| {
        let bytes = <[u8; 8]>::try_from(&value[at..at + 8]).map_err(|_| Errno::EPROTO)?;
        u64::try_from(i64::from_ne_bytes(bytes)).map_err(|_| Errno::EPROTO)
    };
    Ok(half(0)?.saturating_mul(MICROS).saturating_add(half(8)?))
}

/// Sets what must be set before a socket is bound.
///
/// # Errors
/// [`Kind::Incompatible`] where the kernel refuses a value; `object` is the entry.
pub(crate) fn restore_first(socket: BorrowedFd<'_>, options: &SocketOptions, object: &str) -> Result<(), Failure> {
    each(socket, options, object, |known| known.first)
}

/// Sets the others, and owner and group; the last that is done to a socket.
///
/// # Errors
/// As [`restore_first`].
pub(crate) fn restore_last(
    socket: BorrowedFd<'_>,
    options: &SocketOptions,
    owner: (u32, u32),
    object: &str,
) -> Result<(), Failure> {
    // Before it may be locked.
    if let Some(Blob(program)) = &options.filter {
        attach_filter(socket, program).map_err(|errno| {
            let reason = format!("{object}: options: filter: it cannot be attached: {}", errno.desc());
            Failure::new(Kind::Incompatible, reason)
        })?;
    }
    // Once more those that came first: filling may have changed the buffers, and repair has changed SO_REUSEADDR.
    each(socket, options, object, |_| true)?;
    let locks = options.number("SO_BUF_LOCK").unwrap_or(0);
    if get_number(socket, SOL_SOCKET, libc::SO_BUF_LOCK) != Ok(locks) {
        set_number(socket, SOL_SOCKET, libc::SO_BUF_LOCK, locks)
            .doing(|| format!("{object}: unlocking its buffers"))?;
    }
    let limit = |option, us: u64| -> nix::Result<()> {
        let half = |value: u64| i64::try_from(value).map_err(|_| Errno::EINVAL).map(i64::to_ne_bytes);
        if us == 0 {
            Ok(())
        } else {
            set(socket, SOL_SOCKET, option, &[half(us / MICROS)?, half(us % MICROS)?].concat())
        }
    };
    limit(libc::SO_RCVTIMEO, options.receive_timeout_us).doing(|| format!("{object}: setting SO_RCVTIMEO"))?;
    limit(libc::SO_SNDTIMEO, options.send_timeout_us).doing(|| format!("{object}: setting SO_SNDTIMEO"))?;
    if let Some(seconds) = options.linger {
        let value = [1u32.to_ne_bytes(), seconds.to_ne_bytes()].concat();
        set(socket, SOL_SOCKET, libc::SO_LINGER, &value).doing(|| format!("{object}: setting SO_LINGER"))?;
    }
    let (uid, gid) = owner;
    nix::unistd::fchown(socket, Some(uid.into()), Some(gid.into()))
        .doing(|| format!("{object}: giving the socket to user {uid}, group {gid}"))
}

fn each(
    socket: BorrowedFd<'_>,
    options: &SocketOptions,
    object: &str,
    which: fn(KnownOption) -> bool,
) -> Result<(), Failure> {
    for option in &options.numbers {
        let known = known_option(&option.name).ok_or_else(|| {
            Failure::new(Kind::BadImage, format!("{object}: options: {:?} is none that is carried", option.name))
        })?;
        if !which(known) || get_number(socket, known.level, known.number) == Ok(option.value) {
            continue;
        }
        put(socket, known, option.value).map_err(|errno| {
            let reason = format!("{object}: options: {} cannot be {}: {}", known.name, option.value, errno.desc());
            Failure::new(Kind::Incompatible, reason)
        })?;
    }
    Ok(())
}

fn put(socket: BorrowedFd<'_>, known: KnownOption, value: i32) -> nix::Result<()> {
    match known.number {
        option @ (libc::SO_SNDBUF | libc::SO_RCVBUF) if known.level == SOL_SOCKET => set_size(socket, option, value),
        _ => set_number(socket, known.level, known.number, value),
    }
}

/// Makes room for `bytes` that are about to be put into a buffer of a socket: `SO_SNDBUF` or `SO_RCVBUF`. Returns how large it was,
/// for [`set_size`].
pub(crate) fn make_room(socket: BorrowedFd<'_>, option: i32, bytes: u64) -> nix::Result<i32> {
    let now = get_number(socket, SOL_SOCKET, option)?;
    // A page of overhead for each small message is more than the kernel counts.
    let wanted = i32::try_from(bytes.saturating_mul(2).saturating_add(1 << 16)).unwrap_or(i32::MAX / 2);
    if now < wanted {
        set_size(socket, option, wanted.saturating_mul(2))?;
    }
    Ok(now)
}

/// Sets the size of a buffer, as getsockopt(2) tells it, unless it is so. [`restore_last`] sets whether the kernel may change it.
pub(crate) fn set_size(socket: BorrowedFd<'_>, option: i32, size: i32) -> nix::Result<()> {
    let force = if option == libc::SO_SNDBUF { libc::SO_SNDBUFFORCE } else { libc::SO_RCVBUFFORCE };
    let now = get_number(socket, SOL_SOCKET, option)?;
    // The kernel doubles what it is given.
    if now == size { Ok(()) } else { set_number(socket, SOL_SOCKET, force, size / 2) }
}

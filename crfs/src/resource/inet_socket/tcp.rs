//! TCP_INFO and TCP_REPAIR.
//!
//! Source: tcp(7); `struct tcp_info`, `struct tcp_repair_opt` in include/uapi/linux/tcp.h; `do_tcp_setsockopt` in net/ipv4/tcp.c, v6.18.

use crfs_sys::socket_options::{get, get_number, set, set_number};
use nix::Result;
use nix::errno::Errno;
use std::os::fd::BorrowedFd;

const IPPROTO_TCP: i32 = libc::IPPROTO_TCP;
const TCP_REPAIR: i32 = 19;
const TCP_REPAIR_QUEUE: i32 = 20;
const TCP_QUEUE_SEQ: i32 = 21;
const TCP_REPAIR_OPTIONS: i32 = 22;
const TCP_REPAIR_WINDOW: i32 = 29;
/// Leaves repair without telling the other end anything.
const QUIETLY: i32 = -1;
const TCPOPT_MSS: u32 = 2;
const TCPOPT_WINDOW: u32 = 3;
const TCPOPT_SACK_PERM: u32 = 4;
const TCPOPT_TIMESTAMP: u32 = 8;
const TCPI_OPT_TIMESTAMPS: u8 = 1;
const TCPI_OPT_SACK: u8 = 2;
const TCPI_OPT_WSCALE: u8 = 4;

/// The states of a connection (include/net/tcp_states.h, v6.18).
pub(super) const ESTABLISHED: u8 = 1;
pub(super) const FIN_WAIT1: u8 = 4;
pub(super) const FIN_WAIT2: u8 = 5;
pub(super) const CLOSE: u8 = 7;
pub(super) const CLOSE_WAIT: u8 = 8;
pub(super) const LAST_ACK: u8 = 9;
pub(super) const LISTEN: u8 = 10;
pub(super) const CLOSING: u8 = 11;

/// What TCP_INFO says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Info {
    pub(super) state: u8,
    pub(super) timestamps: bool,
    pub(super) sack: bool,
    /// For what this end tells; None without scaling.
    pub(super) window_scale: Option<u8>,
    /// Of a listening socket: connections that wait to be accepted.
    pub(super) waiting: u32,
    /// Of a listening socket: how many may wait.
    pub(super) backlog: u32,
    pub(super) advertised_mss: u32,
    /// Segments with data that were sent, ever.
    pub(super) sent_segments: u32,
}

/// Asks for TCP_INFO.
pub(super) fn info(socket: BorrowedFd<'_>) -> Result<Info> {
    let mut bytes = [0; 256];
    let length = get(socket, IPPROTO_TCP, libc::TCP_INFO, &mut bytes)?;
    // As long as the last member that is read here.
    if length < 160 {
        return Err(Errno::EOPNOTSUPP);
    }
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let options = bytes[5];
    Ok(Info {
        state: bytes[0],
        timestamps: options & TCPI_OPT_TIMESTAMPS != 0,
        sack: options & TCPI_OPT_SACK != 0,
        window_scale: (options & TCPI_OPT_WSCALE != 0).then_some(bytes[6] >> 4),
        waiting: word(24),
        backlog: word(28),
        advertised_mss: word(84),
        sent_segments: word(156),
    })
}

/// The two queues of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// What was received.
    Receive = 1,
    /// What is to be sent.
    Send = 2,
}

/// Begins repair: nothing is sent to the other end from now on.
pub(super) fn begin_repair(socket: BorrowedFd<'_>) -> Result<()> {
    set_number(socket, IPPROTO_TCP, TCP_REPAIR, 1)
}

/// Ends it, and asks the other end for its window.
pub(super) fn end_repair(socket: BorrowedFd<'_>) -> Result<()> {
    set_number(socket, IPPROTO_TCP, TCP_REPAIR, 0)
}

/// Ends it as if nothing had been. SO_REUSEADDR, which repair sets and clears, is for the caller.
pub(super) fn end_repair_quietly(socket: BorrowedFd<'_>) -> Result<()> {
    set_number(socket, IPPROTO_TCP, TCP_REPAIR, QUIETLY)
}

/// Which queue is looked into or put into from now on.
pub(super) fn choose(socket: BorrowedFd<'_>, queue: Queue) -> Result<()> {
    set_number(socket, IPPROTO_TCP, TCP_REPAIR_QUEUE, queue as i32)
}

/// Where a queue begins: the number of its next byte.
pub(super) fn set_sequence(socket: BorrowedFd<'_>, queue: Queue, number: u32) -> Result<()> {
    choose(socket, queue)?;
    set_number(socket, IPPROTO_TCP, TCP_QUEUE_SEQ, number.cast_signed())
}

/// What both ends agreed on when the connection was opened, as one of them has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// The largest segment that the other end takes.
    pub(super) mss: u32,
    /// Scales of the window the other end tells, and of the one this end tells.
    pub(super) scales: Option<(u8, u8)>,
    pub(super) sack: bool,
    pub(super) timestamps: bool,
}

/// Sets what was agreed on, of a connection under repair.
pub(super) fn set_agreed(socket: BorrowedFd<'_>, agreed: Agreed) -> Result<()> {
    let mut options = vec![(TCPOPT_MSS, agreed.mss)];
    options.extend(agreed.scales.map(|(theirs, own)| (TCPOPT_WINDOW, u32::from(theirs) | u32::from(own) << 16)));
    options.extend(agreed.sack.then_some((TCPOPT_SACK_PERM, 0)));
    options.extend(agreed.timestamps.then_some((TCPOPT_TIMESTAMP, 0)));
    let bytes: Vec<u8> =
        options.iter().flat_map(|(code, value)| [code.to_ne_bytes(), value.to_ne_bytes()]).flatten().collect();
    set(socket, IPPROTO_TCP, TCP_REPAIR_OPTIONS, &bytes)
}

/// How many bytes a connection under repair would still take before its program reads, when it holds `received`.
pub(super) fn room(socket: BorrowedFd<'_>, received: u32) -> Result<u32> {
    // `struct tcp_repair_window`: the fourth number is the window it tells, counted from the first byte.
    let mut bytes = [0; 20];
    get(socket, IPPROTO_TCP, TCP_REPAIR_WINDOW, &mut bytes)?;
    Ok(u32::from_ne_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]).saturating_sub(received))
}

/// Tells a connection under repair both windows: so many bytes it takes itself, `next` being the number of the first of them, and so
/// many the other end takes. Without that the other end's is unknown, and nothing is sent until a timer asks for it.
pub(super) fn set_windows(socket: BorrowedFd<'_>, next: u32, own: u32, other: u32) -> Result<()> {
    // snd_wl1 (the segment that told it, before any that comes), snd_wnd, max_window, rcv_wnd, rcv_wup
    let window = [next.wrapping_sub(1), other, other, own, next];
    set(socket, IPPROTO_TCP, TCP_REPAIR_WINDOW, &window.map(u32::to_ne_bytes).concat())
}

/// Bytes of the send queue, `length` of them, and leaves them there.
///
/// A worker that is killed in between leaves the connection under repair.
pub(super) fn look_at_unsent(socket: BorrowedFd<'_>, length: usize) -> Result<Vec<u8>> {
    let reuse = get_number(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    begin_repair(socket)?;
    let looked = choose(socket, Queue::Send).and_then(|()| crfs_sys::socket_queue::peek(socket, length));
    end_repair_quietly(socket)?;
    set_number(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, reuse)?;
    looked.map(|message| message.data)
}

/// TCP_CONGESTION
pub(super) fn congestion(socket: BorrowedFd<'_>) -> Result<String> {
    let mut name = [0; 16];
    let length = get(socket, IPPROTO_TCP, libc::TCP_CONGESTION, &mut name)?;
    let name = &name[..length];
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(length);
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// Sets TCP_CONGESTION, unless it is so.
pub(super) fn set_congestion(socket: BorrowedFd<'_>, name: &str) -> Result<()> {
    if congestion(socket)? == name { Ok(()) } else { set(socket, IPPROTO_TCP, libc::TCP_CONGESTION, name.as_bytes()) }
}

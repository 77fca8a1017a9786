//! Connections that wait to be accepted: what a child makes of them, and what must be read of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crfs_sys::puppet::{Arg, Step};

use super::Trouble;
use super::actor::Script;
use super::checks::same;
use super::scene::{Roles, Scene, message};
use crate::error::Error;
use crate::feature::Feature;
use crate::files;
use crate::paths::Path;
use crate::pending_tcp::{self, PendingTcp};
use crate::pending_unix::{self, PendingUnix, Sender, SentMessage};
use crate::socket_buffers::{self, GIGABYTE};
use crate::state::{KernelState, View};

/// The name of the first client.
const CLIENT: &[u8] = b"\x01\0\0crfs-client";
const LISTENER: &[u8] = b"\x01\0\0crfs";
const EMPTY_LISTENER: &[u8] = b"\x01\0\0crfs-empty";
/// What is sent as root.
const SHORT: usize = 5;
/// What is sent as another user, in so many pieces of the message below: more than has room in one piece of memory.
const PIECES: usize = 8;
const PIECE: usize = 5000;
const NUMBER: usize = 3;
/// User and group that send it.
const SENDER: (u32, u32) = (12_345, 23_456);
/// The child's first descriptor, which it sends.
const PASSED: u32 = 3;
/// Gigabytes below and above a known address in which the kernel's map of all memory is looked for.
const REACH: u64 = 4096;

const STREAM: u64 = libc::SOCK_STREAM as u64;
const UNIX: u64 = libc::AF_UNIX as u64;
const INET: u64 = libc::AF_INET as u64;
/// Ports of 127.0.0.1 in a network where nobody else is.
const LISTENER_PORT: u16 = 4321;
const CLIENT_PORT: u16 = 54_321;
/// TCP_ESTABLISHED (include/net/tcp_states.h, v6.18).
const ESTABLISHED: u8 = 1;
/// How long data may be on its way over the loopback interface.
const DEADLINE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_micros(500);
/// "Leave it as it is", for setresuid(2).
const SAME: u64 = u64::MAX;

/// A listening socket with a client that has sent something and one that is closed already, and a listening socket without any;
/// in a network that goes with the child.
pub(super) fn script(s: &mut Script) -> Result<(), Error> {
    s.call("unshare of the network", libc::SYS_unshare, [u64::from(libc::CLONE_NEWNET.unsigned_abs())]);
    listen(s, "a listening socket", LISTENER)?;
    listen(s, "another listening socket", EMPTY_LISTENER)?;
    let client = connect(s, Some(CLIENT))?;
    let short = s.place(&message(0, SHORT))?;
    s.step("send", Step::call_with(libc::SYS_write, [client, short.into(), (SHORT as u64).into()]));
    let piece = s.place(&message(NUMBER, PIECE))?;
    let pieces = s.words(&[piece, PIECE as u64].repeat(PIECES))?;
    // The effective user stays: nothing but what is sent tells.
    s.call("setresgid", libc::SYS_setresgid, [SENDER.1.into(), SAME, SAME]);
    s.call("setresuid", libc::SYS_setresuid, [SENDER.0.into(), SAME, SAME]);
    s.step("send of much", Step::call_with(libc::SYS_writev, [client, pieces.into(), (PIECES as u64).into()]));
    s.call("setresuid back", libc::SYS_setresuid, [0, SAME, SAME]);
    s.call("setresgid back", libc::SYS_setresgid, [0, SAME, SAME]);
    let client = connect(s, None)?;
    pass(s, client)?;
    s.step("close of a client", Step::call_with(libc::SYS_close, [client]));
    tcp(s, pieces)
}

/// The same of TCP, over a loopback interface that is up.
fn tcp(s: &mut Script, pieces: u64) -> Result<(), Error> {
    let stream = |s: &mut Script, name| {
        let step = s.call(name, libc::SYS_socket, [INET, STREAM, 0]);
        Arg::Result { step, plus: 0 }
    };
    let listener = stream(s, "a listening TCP socket");
    // struct ifreq with IFF_UP.
    let mut request = [0; 40];
    request[..2].copy_from_slice(b"lo");
    request[16] = 1;
    let request = s.place(&request)?;
    s.step("SIOCSIFFLAGS", Step::call_with(libc::SYS_ioctl, [listener, libc::SIOCSIFFLAGS.into(), request.into()]));
    let address = |s: &mut Script, port: u16| {
        let mut address = [0; 16];
        address[0] = 2; // AF_INET, little-endian as the machine.
        address[2..4].copy_from_slice(&port.to_be_bytes());
        address[4..8].copy_from_slice(&Ipv4Addr::LOCALHOST.octets());
        s.place(&address)
    };
    let (here, there) = (address(s, LISTENER_PORT)?, address(s, CLIENT_PORT)?);
    s.step("bind", Step::call_with(libc::SYS_bind, [listener, here.into(), 16.into()]));
    s.step("listen", Step::call_with(libc::SYS_listen, [listener, 4.into()]));
    let client = stream(s, "socket");
    s.step("bind", Step::call_with(libc::SYS_bind, [client, there.into(), 16.into()]));
    s.step("connect of TCP", Step::call_with(libc::SYS_connect, [client, here.into(), 16.into()]));
    s.step("send over TCP", Step::call_with(libc::SYS_writev, [client, pieces.into(), (PIECES as u64).into()]));
    let empty = stream(s, "another listening TCP socket");
    s.step("listen", Step::call_with(libc::SYS_listen, [empty, 4.into()]));
    Ok(())
}

fn socket(s: &mut Script, name: &'static str) -> Arg {
    Arg::Result { step: s.call(name, libc::SYS_socket, [UNIX, STREAM, 0]), plus: 0 }
}

fn bind(s: &mut Script, socket: Arg, name: &[u8]) -> Result<(), Error> {
    let address = s.place(name)?;
    s.step("bind", Step::call_with(libc::SYS_bind, [socket, address.into(), (name.len() as u64).into()]));
    Ok(())
}

fn listen(s: &mut Script, name: &'static str, address: &[u8]) -> Result<(), Error> {
    let listener = socket(s, name);
    bind(s, listener, address)?;
    s.step("listen", Step::call_with(libc::SYS_listen, [listener, 4.into()]));
    Ok(())
}

fn connect(s: &mut Script, own: Option<&[u8]>) -> Result<Arg, Error> {
    let client = socket(s, "socket");
    if let Some(own) = own {
        bind(s, client, own)?;
    }
    let address = s.place(LISTENER)?;
    s.step("connect", Step::call_with(libc::SYS_connect, [client, address.into(), (LISTENER.len() as u64).into()]));
    Ok(client)
}

/// Sends a byte with two duplicates of the first descriptor (SCM_RIGHTS).
fn pass(s: &mut Script, client: Arg) -> Result<(), Error> {
    let byte = s.place(&message(0, 1))?;
    let byte = s.words(&[byte, 1])?;
    // struct cmsghdr with its length, SOL_SOCKET and SCM_RIGHTS; struct msghdr.
    let level_and_kind = u64::from(libc::SCM_RIGHTS.unsigned_abs()) << 32 | u64::from(libc::SOL_SOCKET.unsigned_abs());
    let carried = s.words(&[24, level_and_kind, u64::from(PASSED) << 32 | u64::from(PASSED)])?;
    let header = s.words(&[0, 0, byte, 1, carried, 24, 0])?;
    s.step("sendmsg", Step::call_with(libc::SYS_sendmsg, [client, header.into()]));
    Ok(())
}

fn much() -> Vec<u8> {
    message(NUMBER, PIECE).repeat(PIECES)
}

fn listener(scene: &Scene, name: &'static str) -> Result<i32, Trouble> {
    Ok(i32::try_from(scene.terminal.outcome(name)?).unwrap_or(-1))
}

/// Finds the page of a fragment by its content: the number that leads from descriptions of pages to pages.
pub(super) fn learn_direct_map(state: &mut KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    scene.terminal.outcome("send of much")?;
    let fd = listener(scene, "a listening socket")?;
    let view = state.view(Feature::PendingUnix, &roles.terminal)?;
    let end = pending_unix::waiting(&view, fd)?.first().copied();
    let end = end.ok_or_else(|| Trouble::Wrong("no Unix connection waits".to_owned()))?;
    // The first message has another sender, and a buffer of its own.
    let buffers = socket_buffers::queue(&view, end)?;
    state.known.bits.direct_map = learn(&view, buffers.get(1..).unwrap_or_default())?;
    Ok(())
}

/// The same by what was sent over TCP, when it has arrived.
pub(super) fn learn_direct_map_by_tcp(state: &mut KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for step in ["SIOCSIFFLAGS", "connect of TCP", "send over TCP"] {
        scene.terminal.outcome(step)?;
    }
    let fd = listener(scene, "a listening TCP socket")?;
    let view = state.view(Feature::PendingTcp, &roles.terminal)?;
    let deadline = Instant::now() + DEADLINE;
    let buffers = loop {
        let end = pending_tcp::waiting(&view, fd)?.first().copied();
        let buffers = end.map_or(Ok(Vec::new()), |end| socket_buffers::queue(&view, end))?;
        let arrived = buffers.iter().map(|&buffer| Ok(socket_buffers::lengths(&view, buffer)?.0));
        if arrived.sum::<Result<usize, Error>>()? == PIECE * PIECES {
            break buffers;
        }
        if Instant::now() > deadline {
            return Err(Trouble::Wrong("what was sent over TCP does not arrive".to_owned()));
        }
        std::thread::sleep(PAUSE);
    };
    state.known.bits.direct_map = learn(&view, &buffers)?;
    Ok(())
}

/// `buffers` hold [`much`].
fn learn(view: &View<'_>, buffers: &[u64]) -> Result<u64, Trouble> {
    let much = much();
    let mut sent = much.as_slice();
    for &buffer in buffers {
        let (length, linear) = socket_buffers::lengths(view, buffer)?;
        let fragments = socket_buffers::fragments(view, buffer)?;
        if let (Some(&(page, offset, length)), Some(expected)) = (fragments.first(), sent.get(linear..)) {
            return search(view, buffer, (page, offset), &expected[..length.min(expected.len())]);
        }
        sent = sent.get(length..).unwrap_or_default();
    }
    Err(Trouble::Wrong("nothing that was sent lies in pages".to_owned()))
}

/// A socket buffer lies in the map of all memory itself, so the map is around it.
fn search(view: &View<'_>, known: u64, (page, offset): (u64, u64), expected: &[u8]) -> Result<u64, Trouble> {
    let within = socket_buffers::mapped(view, page, 0)? % GIGABYTE;
    let middle = known - known % GIGABYTE + within;
    let mut bytes = vec![0; expected.len()];
    for gigabytes in (0..REACH).flat_map(|number| [number, number.wrapping_neg()]) {
        let at = middle.wrapping_add(gigabytes.wrapping_mul(GIGABYTE));
        // Where nothing is mapped, reading fails and does no harm.
        if view.bytes_at(at.wrapping_add(offset), Path::FragmentPage, &mut bytes).is_ok() && bytes == expected {
            return Ok(at.wrapping_sub(socket_buffers::mapped(view, page, 0)?));
        }
    }
    Err(Trouble::Wrong("where the kernel maps all memory was not found".to_owned()))
}

pub(super) fn check_unix(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    for step in ["unshare of the network", "connect", "send", "send of much", "setresuid back", "sendmsg"] {
        scene.terminal.outcome(step)?;
    }
    let pending = |name| -> Result<_, Trouble> { Ok(state.pending_unix(&roles.terminal, listener(scene, name)?)?) };
    let by = |(uid, gid)| Sender { pid: roles.terminal.tid(), uid, gid };
    let mut read = pending("a listening socket")?;
    if let Some(named) = read.first_mut() {
        join(&mut named.messages);
    }
    let sent = |data, sender| SentMessage { data, sender: Some(by(sender)), files: Vec::new() };
    let messages = vec![sent(message(0, SHORT), (0, 0)), sent(much(), SENDER)];
    let connection = |is_named, messages| PendingUnix { client: by((0, 0)), is_named, has_urgent: false, messages };
    let passed = files::file(&state.view(Feature::PendingUnix, &roles.terminal)?, PASSED.cast_signed())?;
    let passing = vec![SentMessage { files: vec![passed; 2], ..sent(message(0, 1), (0, 0)) }];
    same("connections", read, vec![connection(true, messages), connection(false, passing)])?;
    same("none", pending("another listening socket")?, Vec::new())
}

pub(super) fn check_tcp(state: &KernelState, scene: &Scene, roles: &Roles) -> Result<(), Trouble> {
    let pending = |name| -> Result<_, Trouble> { Ok(state.pending_tcp(&roles.terminal, listener(scene, name)?)?) };
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (near, far) = (at(LISTENER_PORT), at(CLIENT_PORT));
    let connection = PendingTcp { near, far, state: ESTABLISHED, failed: false, has_urgent: false, data: much() };
    same("connections", pending("a listening TCP socket")?, vec![connection])?;
    same("none", pending("another listening TCP socket")?, Vec::new())
}

/// Into how many buffers the kernel divides what is sent is its own affair.
fn join(messages: &mut Vec<SentMessage>) {
    messages.dedup_by(|next, before| {
        let alike = next.sender == before.sender;
        if alike {
            before.data.append(&mut next.data);
        }
        alike
    });
}

//! The client's end of a console.

use super::{ATTACH, END, INPUT, OUTPUT, PACKET, PAUSE, PAUSED, SIZE, address, pack_size};
use crate::failure::{Doing, Failure, Kind};
use crate::registry::Container;
use libc::winsize;
use nix::errno::Errno;
use nix::sys::socket::sockopt::ReceiveTimeout;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, connect, recv, send, setsockopt, socket};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A holder answers within microseconds unless the machine is overloaded.
const PATIENCE_SECONDS: i64 = 5;

/// What a console tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Bytes for the user's terminal.
    Output(Vec<u8>),
    /// The container has ended; its wait(2) status, where it is known.
    End(Option<i32>),
    /// The holder is gone.
    Lost,
}

/// A connection to a container's console.
#[derive(Debug)]
pub struct Client(OwnedFd);

impl Client {
    /// Connects, and asks for what the console shows, at this size (None: as it is).
    ///
    /// # Errors
    /// [`Kind::WrongState`] where the container has no console.
    pub fn attach(container: &Container, size: Option<&winsize>) -> Result<Self, Failure> {
        let client = Client(connected(container)?.ok_or_else(|| none(container))?);
        client.send(ATTACH, &size.map(pack_size).unwrap_or_default()).doing(|| "console: attaching")?;
        Ok(client)
    }

    /// Types. `EAGAIN`: the console takes no more for now.
    ///
    /// # Errors
    /// Of send(2).
    pub fn input(&self, bytes: &[u8]) -> nix::Result<()> {
        self.send(INPUT, bytes)
    }

    /// Tells the size of the user's terminal.
    ///
    /// # Errors
    /// Of send(2).
    pub fn resize(&self, size: &winsize) -> nix::Result<()> {
        self.send(SIZE, &pack_size(size))
    }

    /// Waits for what the console tells next.
    ///
    /// # Errors
    /// Of recv(2).
    pub fn hear(&self) -> nix::Result<Heard> {
        let packet = packet(&self.0)?;
        Ok(match packet.split_first() {
            Some((&OUTPUT, bytes)) => Heard::Output(bytes.to_vec()),
            Some((&END, status)) => Heard::End(status.try_into().ok().map(i32::from_ne_bytes)),
            _ => Heard::Lost,
        })
    }

    fn send(&self, letter: u8, bytes: &[u8]) -> nix::Result<()> {
        send_packet(&self.0, letter, bytes)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A console whose holder reads nothing from the terminal until this is dropped.
#[derive(Debug)]
pub struct Pause {
    _connection: OwnedFd,
    /// The terminal's number in the container's devpts.
    pub number: u32,
    /// The last that was shown.
    pub shown: Vec<u8>,
}

impl Pause {
    /// Pauses a container's console. None where it has none.
    ///
    /// # Errors
    /// When its holder does not answer.
    pub fn begin(container: &Container) -> Result<Option<Self>, Failure> {
        let Some(connection) = connected(container)? else { return Ok(None) };
        let doing = || "console: asking what it shows";
        setsockopt(&connection, ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS)).doing(doing)?;
        send_packet(&connection, PAUSE, &[]).doing(doing)?;
        let packet = packet(&connection).doing(doing)?;
        let answer = packet.strip_prefix(&[PAUSED]).and_then(|rest| rest.split_at_checked(4));
        let bad = || Failure::new(Kind::System, "console: its holder gives another answer than expected");
        let (number, shown) = answer.ok_or_else(bad)?;
        let number = u32::from_ne_bytes(number.try_into().map_err(|_| bad())?);
        Ok(Some(Pause { _connection: connection, number, shown: shown.to_vec() }))
    }
}

/// None where nobody listens.
fn connected(container: &Container) -> Result<Option<OwnedFd>, Failure> {
    let doing = || format!("{}: connecting to its console", container.name());
    container.existing()?;
    let (_directory, address) = address(container).doing(doing)?;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).doing(doing)?;
    match connect(socket.as_raw_fd(), &address) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
        Err(errno) => Err(errno).doing(doing),
    }
}

fn none(container: &Container) -> Failure {
    let name = container.name();
    Failure::new(
        Kind::WrongState,
        format!(
            "{name}: it has no terminal to attach to; `crctl run -t` gives a container one, and `crctl logs {name}` shows its output"
        ),
    )
}

fn send_packet(socket: &OwnedFd, letter: u8, bytes: &[u8]) -> nix::Result<()> {
    let packet = [&[letter], bytes].concat();
    send(socket.as_raw_fd(), &packet, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT).map(drop)
}

fn packet(socket: &OwnedFd) -> nix::Result<Vec<u8>> {
    let mut packet = vec![0; PACKET];
    let length = loop {
        match recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => break 0,
            other => break other?,
        }
    };
    packet.truncate(length);
    Ok(packet)
}

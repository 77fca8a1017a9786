//! A container's console: the terminal that `crctl run -t` gives it, whose master lives in a process of its own.
//!
//! That process, the holder, is this program under the name [`ARGV0`]. It outlives whoever started it and ends with the container; it
//! stands outside of the cgroup, so that a frozen container keeps its terminal. It writes what the terminal shows to the container's log,
//! keeps the last of it for those who look later, and takes input from any number of clients over a socket in the container's
//! directory.
//!
//! Messages are packets of a SOCK_SEQPACKET socket: a letter, then what belongs to it.

mod client;
mod holder;
mod start;

pub use client::{Client, Heard, Pause};
pub use holder::exit_if_holder;
pub use start::{open, start};

use crate::registry::Container;
use libc::winsize;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open as open_path};
use nix::sys::socket::UnixAddr;
use nix::sys::stat::Mode;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The name a holder is started under.
pub const ARGV0: &str = "crfs-console";
/// The socket in the container's directory.
const SOCKET: &str = "console";
/// What an earlier console showed, for the holder that takes its place.
const SCROLLBACK: &str = "scrollback";
/// How much of what was shown is kept.
pub const SCROLLBACK_SIZE: usize = image_format::tty::SHOWN_SIZE;
/// The longest packet: a whole scrollback, with its letter and a number.
const PACKET: usize = SCROLLBACK_SIZE + 64;

/// A client wants to see the console, at the size that follows.
const ATTACH: u8 = b'a';
/// Input.
const INPUT: u8 = b'i';
/// Another size.
const SIZE: u8 = b's';
/// What was shown is asked for, and nothing more is to be read from the terminal until the connection ends.
const PAUSE: u8 = b'p';
/// To a client: what the terminal shows.
const OUTPUT: u8 = b'o';
/// To a client: the wait(2) status of the container's first process. The last packet.
const END: u8 = b'e';
/// To who paused it: the terminal's number, and what was shown.
const PAUSED: u8 = b'q';

/// The size of a terminal. None for what is no terminal.
#[must_use]
pub fn terminal_size(fd: BorrowedFd<'_>) -> Option<winsize> {
    crfs_sys::tty::window_size(fd).ok()
}

/// The address of the socket. The directory must be kept open while it is used: its path may be too long for an address.
fn address(container: &Container) -> nix::Result<(OwnedFd, UnixAddr)> {
    let directory = open_path(container.dir(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let address = address_in(&directory, SOCKET)?;
    Ok((directory, address))
}

fn address_in(directory: &OwnedFd, name: &str) -> nix::Result<UnixAddr> {
    UnixAddr::new(Path::new(&format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())))
}

fn pack_size(size: &winsize) -> Vec<u8> {
    [size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel].iter().flat_map(|part| part.to_ne_bytes()).collect()
}

fn unpack_size(bytes: &[u8]) -> nix::Result<winsize> {
    let part = |index: usize| {
        let pair = bytes.get(index * 2..index * 2 + 2).and_then(|pair| pair.try_into().ok());
        pair.map(u16::from_ne_bytes).ok_or(Errno::EPROTO)
    };
    Ok(winsize { ws_row: part(0)?, ws_col: part(1)?, ws_xpixel: part(2)?, ws_ypixel: part(3)? })
}

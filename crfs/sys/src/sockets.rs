//! Network interfaces of the calling thread's network namespace.
//!
//! Source: netdevice(7).

use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::Result;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// `struct ifreq` with the member for flags: 40 bytes.
#[repr(C)]
struct FlagsRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}
const _: () = assert!(size_of::<FlagsRequest>() == 40);

// These two are older than the scheme that puts direction and size into an ioctl's number.
mod ioctl {
    nix::ioctl_read_bad!(get_flags, 0x8913, super::FlagsRequest);
    nix::ioctl_write_ptr_bad!(set_flags, 0x8914, super::FlagsRequest);
}

/// IFF_UP.
const UP: u16 = 1;

/// A socket to ask by, and the flags of `lo`.
fn loopback() -> Result<(OwnedFd, FlagsRequest)> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut request = FlagsRequest { name: [0; 16], flags: 0, rest: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the kernel reads the name and writes the flags of one ifreq.
    unsafe { ioctl::get_flags(socket.as_raw_fd(), &raw mut request) }?;
    Ok((socket, request))
}

/// Whether `lo` is up.
pub fn loopback_is_up() -> Result<bool> {
    Ok(loopback()?.1.flags & UP != 0)
}

/// Brings `lo` up, which is down in a new network namespace. `EPERM` without CAP_NET_ADMIN there.
pub fn bring_loopback_up() -> Result<()> {
    set_loopback(true)
}

/// Takes `lo` down. `EPERM` as above.
pub fn take_loopback_down() -> Result<()> {
    set_loopback(false)
}

fn set_loopback(up: bool) -> Result<()> {
    let (socket, mut request) = loopback()?;
    request.flags = if up { request.flags | UP } else { request.flags & !UP };
    // SAFETY: the kernel reads one ifreq.
    unsafe { ioctl::set_flags(socket.as_raw_fd(), &raw const request) }?;
    Ok(())
}

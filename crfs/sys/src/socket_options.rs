//! Options and addresses of sockets, as bytes: what they mean is for the caller, who knows the family.
//!
//! Source: getsockopt(2), getsockname(2), bind(2), connect(2).

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

use nix::Result;
use nix::errno::Errno;

/// `struct sockaddr_storage`
const ADDRESS_SIZE: usize = 128;

fn length(size: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(size).unwrap_or(libc::socklen_t::MAX)
}

/// Reads an option into `value`, and returns how many bytes the kernel gave.
pub fn get(socket: BorrowedFd<'_>, level: i32, option: i32, value: &mut [u8]) -> Result<usize> {
    let mut size = length(value.len());
    // SAFETY: the kernel writes at most as many bytes as `size` says that `value` has.
    let result =
        unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, value.as_mut_ptr().cast(), &raw mut size) };
    Errno::result(result)?;
    Ok(value.len().min(size as usize))
}

/// The classic BPF program that filters what reaches a socket (SO_GET_FILTER): `struct sock_filter`, 8 bytes each. Empty without one;
/// `EACCES`: it was made from a BPF program (SO_ATTACH_BPF), or by the kernel.
pub fn filter(socket: BorrowedFd<'_>) -> Result<Vec<u8>> {
    let ask = |program: *mut libc::c_void, mut count: libc::socklen_t| {
        // SAFETY: the kernel writes as many instructions as `count` says that there is room for; asked with 0 it writes nothing but the
        // count, which alone among options is in instructions and not in bytes (`sk_get_filter`, net/core/filter.c, v6.18).
        let result = unsafe {
            libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_GET_FILTER, program, &raw mut count)
        };
        Errno::result(result).map(|_| count)
    };
    let count = ask(null_mut(), 0)?;
    let mut program = vec![0; count as usize * size_of::<libc::sock_filter>()];
    if count > 0 {
        ask(program.as_mut_ptr().cast(), count)?;
    }
    Ok(program)
}

/// Lets a classic BPF program, as [`filter`] gives it, filter what reaches a socket (SO_ATTACH_FILTER).
pub fn attach_filter(socket: BorrowedFd<'_>, program: &[u8]) -> Result<()> {
    // sock_fprog wants them aligned.
    let mut instructions: Vec<libc::sock_filter> = program
        .as_chunks::<8>()
        .0
        .iter()
        .map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| libc::sock_filter {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        })
        .collect();
    let len = u16::try_from(instructions.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len, filter: instructions.as_mut_ptr() };
    // SAFETY: a `sock_fprog` whose `len` instructions the kernel reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            length(size_of::<libc::sock_fprog>()),
        )
    };
    Errno::result(result).map(drop)
}

/// Sets an option.
pub fn set(socket: BorrowedFd<'_>, level: i32, option: i32, value: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads that many bytes.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value.as_ptr().cast(), length(value.len())) };
    Errno::result(result).map(drop)
}

/// Reads an option that is an `int`; some are told in one byte.
pub fn get_number(socket: BorrowedFd<'_>, level: i32, option: i32) -> Result<i32> {
    let mut value = [0; size_of::<i32>()];
    match get(socket, level, option, &mut value)? {
        1 => Ok(value[0].into()),
        4 => Ok(i32::from_ne_bytes(value)),
        _ => Err(Errno::EPROTO),
    }
}

/// Sets an option that is an `int`.
pub fn set_number(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> Result<()> {
    set(socket, level, option, &value.to_ne_bytes())
}

type AskAddress = unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn address(socket: BorrowedFd<'_>, ask: AskAddress) -> Result<Vec<u8>> {
    // A path of the longest kind has one byte more than fits: the closing NUL.
    let mut bytes = vec![0; ADDRESS_SIZE];
    let mut size = length(bytes.len());
    // SAFETY: the kernel writes at most as many bytes as `size` says there are.
    Errno::result(unsafe { ask(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), &raw mut size) })?;
    bytes.truncate(size as usize);
    Ok(bytes)
}

/// The `struct sockaddr` that a socket is bound to, with its family.
pub fn own_address(socket: BorrowedFd<'_>) -> Result<Vec<u8>> {
    address(socket, libc::getsockname)
}

/// The `struct sockaddr` that a socket is connected to. `ENOTCONN` when it is not.
pub fn peer_address(socket: BorrowedFd<'_>) -> Result<Vec<u8>> {
    address(socket, libc::getpeername)
}

/// bind(2) to a `struct sockaddr`.
pub fn bind(socket: BorrowedFd<'_>, address: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads that many bytes.
    Errno::result(unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), length(address.len())) }).map(drop)
}

/// connect(2) to a `struct sockaddr`.
pub fn connect(socket: BorrowedFd<'_>, address: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads that many bytes.
    let result = unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), length(address.len())) };
    Errno::result(result).map(drop)
}

/// listen(2), with any backlog that the kernel reports.
pub fn listen(socket: BorrowedFd<'_>, backlog: i32) -> Result<()> {
    // SAFETY: numbers.
    Errno::result(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// accept4(2): the next connection that waits, close-on-exec and without waiting itself. `EAGAIN` when none does and the socket does
/// not wait.
pub fn accept(socket: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no address is asked for.
    let accepted = unsafe { libc::accept4(socket.as_raw_fd(), null_mut(), null_mut(), flags) };
    // SAFETY: the kernel has just opened it for this process, and nobody else knows of it.
    Errno::result(accepted).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

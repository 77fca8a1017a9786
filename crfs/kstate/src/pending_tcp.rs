//! TCP connections that wait in a listening socket to be accepted, with what has arrived on them.
//!
//! The listening socket has a list of requests, each with the end that accept(2) will return. That end is a socket like any other but that
//! no file leads to it: segments wait in its queue, which may overlap where one was sent again.
//!
//! Source: include/net/request_sock.h, include/net/tcp.h, `tcp_data_queue` in net/ipv4/tcp_input.c, v6.18.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::error::Error;
use crate::feature::Feature;
use crate::files;
use crate::paths::Path;
use crate::socket_buffers;
use crate::state::{KernelState, View};
use crate::tasks::Task;

/// More than may wait: net.core.somaxconn is far below.
const MAX_REQUESTS: usize = 1 << 20;
/// As `skc_family` has it.
const AF_INET: u16 = 2;

/// A connection that waits in a listening TCP socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingTcp {
    /// The address of the end that accept(2) will return. Of a socket for both versions of IP it may be a mapped one.
    pub near: SocketAddr,
    /// The client's.
    pub far: SocketAddr,
    /// As TCP_INFO numbers it.
    pub state: u8,
    /// Whether an error waits to be told.
    pub failed: bool,
    /// Whether a byte of it is urgent (MSG_OOB).
    pub has_urgent: bool,
    /// What has arrived.
    pub data: Vec<u8>,
}

impl KernelState {
    /// The connections that wait in the listening TCP socket behind a descriptor, in their order. The descriptor must be one of such a
    /// socket, which TCP_INFO tells.
    ///
    /// # Errors
    /// [`Error::NotOpen`], [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`]; [`Error::List`] when a queue changes meanwhile.
    pub fn pending_tcp(&self, task: &Task, fd: i32) -> Result<Vec<PendingTcp>, Error> {
        let view = self.view(Feature::PendingTcp, task)?;
        waiting(&view, fd)?.into_iter().map(|end| self.arrived(&view, end)).collect()
    }

    /// The same for a descriptor of the calling thread.
    ///
    /// # Errors
    /// As [`KernelState::pending_tcp`].
    pub fn own_pending_tcp(&self, fd: i32) -> Result<Vec<PendingTcp>, Error> {
        self.pending_tcp(&Task::caller(0), fd)
    }

    fn arrived(&self, view: &View<'_>, end: u64) -> Result<PendingTcp, Error> {
        let (near_port, far_port) = (short(view, end, Path::SockNearPort)?, short(view, end, Path::SockFarPort)?);
        let mut state = [0];
        view.bytes_from(end, &[Path::SockState], &mut state)?;
        Ok(PendingTcp {
            near: address(view, end, (Path::SockNear, Path::SockNear6), near_port)?,
            // In network byte order, as the program gives it.
            far: address(view, end, (Path::SockFar, Path::SockFar6), u16::from_be(far_port))?,
            state: state[0],
            failed: view.u32_from(end, &[Path::SockError])? != 0,
            has_urgent: short(view, end, Path::TcpUrgent)? != 0,
            data: data(view, end, self.known.bits.direct_map)?,
        })
    }
}

/// The ends (`struct sock`) that accept(2) on a listening TCP socket will return.
pub(crate) fn waiting(view: &View<'_>, fd: i32) -> Result<Vec<u64>, Error> {
    let mut request = view.u64_from(files::sock(view, fd)?, &[Path::AcceptHead])?;
    let mut found = Vec::new();
    while request != 0 {
        if found.len() >= MAX_REQUESTS {
            return Err(Error::List { tid: view.tid(), list: "icsk_accept_queue" });
        }
        found.push(view.u64_from(request, &[Path::RequestSock])?);
        request = view.u64_from(request, &[Path::RequestNext])?;
    }
    Ok(found)
}

fn short(view: &View<'_>, end: u64, path: Path) -> Result<u16, Error> {
    let mut bytes = [0; 2];
    view.bytes_from(end, &[path], &mut bytes)?;
    Ok(u16::from_ne_bytes(bytes))
}

/// An address, where it stands for either version of IP.
fn address(view: &View<'_>, end: u64, (v4, v6): (Path, Path), port: u16) -> Result<SocketAddr, Error> {
    if short(view, end, Path::SockFamily)? == AF_INET {
        let mut bytes = [0; 4];
        view.bytes_from(end, &[v4], &mut bytes)?;
        return Ok((Ipv4Addr::from(bytes), port).into());
    }
    let mut bytes = [0; 16];
    view.bytes_from(end, &[v6], &mut bytes)?;
    Ok((Ipv6Addr::from(bytes), port).into())
}

/// The bytes from the first that was not received on, without what came twice.
fn data(view: &View<'_>, end: u64, direct_map: u64) -> Result<Vec<u8>, Error> {
    let changed = || Error::List { tid: view.tid(), list: "sk_receive_queue" };
    let first = view.u32_from(end, &[Path::TcpCopied])?;
    let mut data: Vec<u8> = Vec::new();
    for buffer in socket_buffers::queue(view, end)? {
        let control = buffer.wrapping_add(view.offset(Path::SkbControl)?);
        let number = view.u32_from(control, &[Path::SegmentNumber])?;
        let bytes = socket_buffers::bytes(view, buffer, direct_map)?;
        let known = first.wrapping_add(length(&data)).wrapping_sub(number) as usize;
        data.extend_from_slice(bytes.get(known..).ok_or_else(changed)?);
    }
    // The end of the data counts as one more.
    let expected = view.u32_from(end, &[Path::TcpNext])?.wrapping_sub(first);
    if expected.wrapping_sub(length(&data)) > 1 {
        return Err(changed());
    }
    Ok(data)
}

/// As sequence numbers count; no queue holds more.
fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

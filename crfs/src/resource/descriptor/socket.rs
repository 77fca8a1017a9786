//! Sockets by name: version 1 carries none, and says which one is in the way.

use super::refused::Refusal;
use super::seen::Seen;
use procfs::net::{TcpNetEntry, TcpState, UdpNetEntry, UnixNetEntry};
use procfs::process::Process;
use std::os::unix::fs::MetadataExt;

/// What socket it is, and what to do.
pub(crate) fn refuse(seen: &Seen) -> Refusal {
    let what = describe(seen);
    let remedy = if what.starts_with("a Unix") {
        "Use a pipe, or have the program close it before the freeze."
    } else {
        "Have the program close its connections before the freeze."
    };
    Refusal::new(format!("{what} cannot be carried"), remedy)
}

fn describe(seen: &Seen) -> String {
    let inode = seen.metadata.ino();
    let protocol = crfs_sys::xattr::socket_protocol(&seen.holder.path()).unwrap_or_default();
    let process = Process::new(seen.holder.host).ok();
    let process = process.as_ref();
    let named = match protocol.as_str() {
        "TCP" => process.and_then(|p| find_tcp(p.tcp().ok()?, inode)),
        "TCPv6" => process.and_then(|p| find_tcp(p.tcp6().ok()?, inode)),
        "UDP" => process.and_then(|p| find_udp(p.udp().ok()?, inode)),
        "UDPv6" => process.and_then(|p| find_udp(p.udp6().ok()?, inode)),
        name if name.starts_with("UNIX") => process.and_then(|p| find_unix(p.unix().ok()?, inode)),
        _ => None,
    };
    named.unwrap_or_else(|| match protocol.as_str() {
        "TCP" | "TCPv6" => "a TCP socket that is not connected".to_owned(),
        "UDP" | "UDPv6" => "a UDP socket that is not bound".to_owned(),
        name if name.starts_with("UNIX") => "a Unix socket".to_owned(),
        "" => format!("a socket (inode {inode})"),
        other => {
            let name = other.to_lowercase();
            let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
            format!("{article} {name} socket")
        }
    })
}

fn find_tcp(entries: Vec<TcpNetEntry>, inode: u64) -> Option<String> {
    let entry = entries.into_iter().find(|entry| entry.inode == inode)?;
    Some(match entry.state {
        TcpState::Listen => format!("a TCP socket listening on {}", entry.local_address),
        _ => format!("a TCP connection from {} to {}", entry.local_address, entry.remote_address),
    })
}

fn find_udp(entries: Vec<UdpNetEntry>, inode: u64) -> Option<String> {
    let entry = entries.into_iter().find(|entry| entry.inode == inode)?;
    Some(if entry.remote_address.port() == 0 {
        format!("a UDP socket bound to {}", entry.local_address)
    } else {
        format!("a UDP socket bound to {} and connected to {}", entry.local_address, entry.remote_address)
    })
}

fn find_unix(entries: Vec<UnixNetEntry>, inode: u64) -> Option<String> {
    let entry = entries.into_iter().find(|entry| entry.inode == inode)?;
    let kind = match i32::from(entry.socket_type) {
        libc::SOCK_STREAM => "stream",
        libc::SOCK_DGRAM => "datagram",
        _ => "packet",
    };
    Some(match entry.path {
        Some(path) => format!("a Unix {kind} socket at {}", path.display()),
        None => format!("a Unix {kind} socket without a name"),
    })
}

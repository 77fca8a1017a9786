//! `struct sockaddr` in memory and the addresses of records.
//!
//! Source: unix(7), ip(7), ipv6(7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// The name of a Unix socket, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    /// A path, without its closing NUL.
    Path(Vec<u8>),
    /// Without the NUL in front.
    Abstract(Vec<u8>),
}

impl Name {
    /// For people.
    pub(crate) fn text(&self) -> String {
        let shown = |bytes: &[u8]| image_format::Bytes(bytes.to_vec()).escaped();
        match self {
            Name::Path(path) => shown(path),
            Name::Abstract(name) => format!("@{}", shown(name)),
        }
    }
}

/// The name in a `sun_path` of this length; None without one.
pub(crate) fn name(sun_path: &[u8]) -> Option<Name> {
    match sun_path {
        [] => None,
        [0, name @ ..] => Some(Name::Abstract(name.to_vec())),
        path => {
            let end = path.iter().position(|&byte| byte == 0).unwrap_or(path.len());
            Some(Name::Path(path[..end].to_vec()))
        }
    }
}

/// The name in a `struct sockaddr_un`.
pub(crate) fn unix_name(sockaddr: &[u8]) -> Option<Name> {
    name(sockaddr.get(2..).unwrap_or_default())
}

/// `struct sockaddr_un`
pub(crate) fn unix(name: &Name) -> Vec<u8> {
    let mut bytes = AF_UNIX.to_ne_bytes().to_vec();
    match name {
        Name::Path(path) => {
            bytes.extend_from_slice(path);
            bytes.push(0);
        }
        Name::Abstract(name) => {
            bytes.push(0);
            bytes.extend_from_slice(name);
        }
    }
    bytes
}

/// The address in a `struct sockaddr_in` or `sockaddr_in6`.
pub(crate) fn ip(sockaddr: &[u8]) -> Option<SocketAddr> {
    let array = |at: usize| sockaddr.get(at..at + 4).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let family = u16::from_ne_bytes([*sockaddr.first()?, *sockaddr.get(1)?]);
    let port = u16::from_be_bytes([*sockaddr.get(2)?, *sockaddr.get(3)?]);
    match family {
        AF_INET => Some(SocketAddrV4::new(Ipv4Addr::from(array(4)?), port).into()),
        AF_INET6 => {
            let address = <[u8; 16]>::try_from(sockaddr.get(8..24)?).ok()?;
            let scope = u32::from_ne_bytes(array(24)?);
            Some(SocketAddrV6::new(Ipv6Addr::from(address), port, 0, scope).into())
        }
        _ => None,
    }
}

/// `struct sockaddr_in` or `sockaddr_in6`.
pub(crate) fn inet(address: SocketAddr) -> Vec<u8> {
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    let mut bytes = family.to_ne_bytes().to_vec();
    bytes.extend(address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => {
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend(v6.flowinfo().to_be_bytes());
            bytes.extend(v6.ip().octets());
            bytes.extend(v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}

/// Without the wrapping that a socket of version 6 has for addresses of version 4.
pub(crate) fn plain(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_of_unix_sockets() {
        for one in [Name::Path(b"/run/x".to_vec()), Name::Abstract(b"a\0b".to_vec()), Name::Abstract(Vec::new())] {
            assert_eq!(unix_name(&unix(&one)), Some(one));
        }
        assert_eq!(unix_name(&AF_UNIX.to_ne_bytes()), None);
    }

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:80", "[::1]:65535", "[::ffff:127.0.0.1]:1", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(ip(&inet(address)), Some(address));
        }
        assert_eq!(plain("[::ffff:127.0.0.1]:1".parse().unwrap()), plain("127.0.0.1:1".parse().unwrap()));
        assert_eq!(ip(&[2, 0, 1]), None);
    }
}

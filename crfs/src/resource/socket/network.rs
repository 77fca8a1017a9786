//! The network namespace that a socket belongs to: the one that whoever made it was in, whoever holds it now.
//!
//! Source: SO_NETNS_COOKIE (include/uapi/asm-generic/socket.h), `sk_getsockopt` in net/core/sock.c, v6.18.

use super::inside;
use crate::failure::{Doing, Failure};
use crfs_sys::socket_options::get;
use image_format::Pid;
use image_format::socket::SocketStyle;
use nix::sys::socket::AddressFamily;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

/// Where a socket was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Network {
    /// In the container's own.
    Own,
    /// In one that some processes have apart: the first of them.
    Apart(Pid),
    /// In one that no process of the container is in.
    Outside,
}

/// The network namespaces of a container's processes.
pub(crate) struct Networks<'a> {
    processes: &'a [(Pid, i32)],
    /// A process that is in the container's own, as the host numbers it.
    init: i32,
    /// By cookie; those apart only once a socket is in none of these.
    known: HashMap<u64, Network>,
    all_are_known: bool,
}

impl<'a> Networks<'a> {
    /// `processes` as the container and the host number them.
    ///
    /// # Errors
    /// When the container's first process is gone.
    pub(crate) fn of(init: i32, processes: &'a [(Pid, i32)]) -> Result<Self, Failure> {
        let known = HashMap::from([(cookie_of(init)?, Network::Own)]);
        Ok(Networks { processes, init, known, all_are_known: false })
    }

    /// The one that a socket was made in.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub(crate) fn of_socket(&mut self, socket: BorrowedFd<'_>) -> nix::Result<Network> {
        let its = cookie(socket)?;
        if !self.known.contains_key(&its) && !self.all_are_known {
            self.look();
        }
        Ok(self.known.get(&its).copied().unwrap_or(Network::Outside))
    }

    /// A process that is in one, as the host numbers it; of those outside, one in the container's own.
    pub(crate) fn host(&self, network: Network) -> i32 {
        let Network::Apart(first) = network else { return self.init };
        self.processes.iter().find(|(pid, _)| *pid == first).map_or(self.init, |(_, host)| *host)
    }

    /// Processes that are gone meanwhile, where they run, are passed over.
    fn look(&mut self) {
        self.all_are_known = true;
        let mut seen = HashSet::new();
        for &(pid, host) in self.processes {
            let inode = std::fs::metadata(format!("/proc/{host}/ns/net")).map(|found| found.ino());
            if inode.is_ok_and(|inode| seen.insert(inode))
                && let Ok(its) = cookie_of(host)
            {
                self.known.entry(its).or_insert(Network::Apart(pid));
            }
        }
    }
}

/// That of a process (host pid).
fn cookie_of(host: i32) -> Result<u64, Failure> {
    inside::in_network(host, || {
        let asker = super::options::fresh(AddressFamily::Unix, SocketStyle::Datagram);
        asker.and_then(|asker| cookie(asker.as_fd())).doing(|| "asking for the cookie of a network (SO_NETNS_COOKIE)")
    })
}

fn cookie(socket: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut value = [0; 8];
    get(socket, libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, &mut value)?;
    Ok(u64::from_ne_bytes(value))
}

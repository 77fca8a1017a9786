//! Calls that leave their caller's credentials behind (SO_PEERCRED, `init_peercred` in `net/unix/af_unix.c`, v6.18): made in the process
//! that they belong to, as the user it was; in the worker where that process has ended, or was never one of the container.

use crate::failure::{Doing, Failure, Kind};
use crate::resource::socket::inside;
use crate::resource::socket::restore::Processes;
use crfs_sys::socket_options;
use crfs_tracee::{Arg, Batch};
use image_format::socket::{SocketCredentials, SocketStyle};
use image_format::{Pid, layout};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Gid, Uid, setegid, seteuid, setfsuid};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// "Leave it as it is", for setresuid(2).
const SAME: i32 = -1;

/// Makes the calls. What a process opens for one it closes again.
pub(super) struct Calls<'a> {
    pub(super) processes: &'a mut dyn Processes,
}

impl Calls<'_> {
    /// Who of the container's processes is to make a call; None: the worker.
    fn process(&mut self, who: Option<SocketCredentials>) -> Option<SocketCredentials> {
        who.filter(|who| who.pid != Pid(0) && self.processes.host(who.pid).is_some())
    }

    /// listen(2)
    pub(super) fn listen(
        &mut self,
        who: Option<SocketCredentials>,
        socket: BorrowedFd<'_>,
        backlog: i32,
    ) -> Result<(), Failure> {
        let Some(process) = self.process(who) else {
            return as_worker(who, || socket_options::listen(socket, backlog)).doing(|| "listening");
        };
        self.inject(process, socket, |batch, fd| {
            batch.call(libc::SYS_listen, &[fd, backlog.into()], "listen");
        })
    }

    /// connect(2) to a `struct sockaddr`; a path in it is as the container has it. `place`: the socket file of the path, for the
    /// worker.
    pub(super) fn connect(
        &mut self,
        who: Option<SocketCredentials>,
        socket: BorrowedFd<'_>,
        address: &[u8],
        place: Option<BorrowedFd<'_>>,
    ) -> Result<(), Failure> {
        match self.process(who) {
            Some(process) if !address.is_empty() => self.inject(process, socket, |batch, fd| {
                let length = address.len();
                let address = batch.data(address);
                batch.call(libc::SYS_connect, &[fd, address.into(), length.into()], "connect");
            }),
            _ => {
                let through = place.map(super::restore::through);
                let address = through.as_deref().unwrap_or(address);
                as_worker(who, || socket_options::connect(socket, address)).doing(|| "connecting")
            }
        }
    }

    /// socketpair(2), as often as is asked for: in the first of two networks, from the second, where all processes and the worker are.
    pub(super) fn pairs(
        &mut self,
        who: Option<SocketCredentials>,
        style: SocketStyle,
        count: usize,
        network: Option<(&File, &File)>,
    ) -> Result<Vec<(OwnedFd, OwnedFd)>, Failure> {
        let kind = match style {
            SocketStyle::Stream => SockType::Stream,
            SocketStyle::Datagram => SockType::Datagram,
            SocketStyle::Seqpacket => SockType::SeqPacket,
        };
        let Some(process) = self.process(who) else {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let pair = || socketpair(AddressFamily::Unix, kind, None, flags);
            let pairs = || as_worker(who, || (0..count).map(|_| pair()).collect()).doing(|| "making pairs");
            return match network {
                Some((there, _)) => inside::in_open_network(there, pairs),
                None => pairs(),
            };
        };
        let mut batch = Batch::new();
        if let Some((there, _)) = network {
            self.join(&mut batch, there);
        }
        become_user(&mut batch, process);
        let (family, kind) = (libc::AF_UNIX, kind as i32 | SockFlag::SOCK_NONBLOCK.bits());
        let mut ends = Vec::with_capacity(count);
        for _ in 0..count {
            let numbers = batch.data(&[0; 8]);
            batch.call(libc::SYS_socketpair, &[family.into(), kind.into(), 0.into(), numbers.into()], "socketpair");
            // What a call returns can be told; what it writes can be used by later ones.
            ends.push([0, 4].map(|at| {
                let end = Arg::Data32(numbers.from(at));
                let duplicate = batch.call(libc::SYS_dup, &[end], "dup").index();
                batch.call(libc::SYS_close, &[end], "close");
                duplicate
            }));
        }
        become_root(&mut batch, process);
        if let Some((_, back)) = network {
            self.join(&mut batch, back);
        }
        let results = self.processes.run(process.pid, &batch)?;
        let host = self.processes.host(process.pid).unwrap_or(0);
        let pulled = pull(host, &ends, &results);
        let pulled = pulled.doing(|| format!("{}: pulling pairs out of it", layout::process_dir(process.pid)))?;
        let mut batch = Batch::new();
        for &number in ends.iter().flatten().filter_map(|&at| results.get(at)) {
            batch.call(libc::SYS_close, &[number.into()], "close");
        }
        self.processes.run(process.pid, &batch)?;
        Ok(pulled)
    }

    /// The calls by which a process joins a network.
    fn join(&self, batch: &mut Batch, network: &File) {
        let arguments = [self.processes.link().into(), network.as_raw_fd().into(), 0.into()];
        let pulled = batch.call(libc::SYS_pidfd_getfd, &arguments, "pidfd_getfd");
        batch.call(libc::SYS_setns, &[pulled.into(), libc::CLONE_NEWNET.into()], "setns");
        batch.call(libc::SYS_close, &[pulled.into()], "close");
    }

    /// Runs `call` in a process on a duplicate of a socket of the worker.
    fn inject(
        &mut self,
        process: SocketCredentials,
        socket: BorrowedFd<'_>,
        call: impl FnOnce(&mut Batch, Arg),
    ) -> Result<(), Failure> {
        let mut batch = Batch::new();
        let arguments = [self.processes.link().into(), socket.as_raw_fd().into(), 0.into()];
        let pulled = batch.call(libc::SYS_pidfd_getfd, &arguments, "pidfd_getfd");
        become_user(&mut batch, process);
        call(&mut batch, pulled.into());
        become_root(&mut batch, process);
        batch.call(libc::SYS_close, &[pulled.into()], "close");
        self.processes.run(process.pid, &batch).map(drop)
    }
}

/// Duplicates of the descriptors of a process of the host whose numbers stand at these places of the results.
fn pull(host: i32, ends: &[[usize; 2]], results: &[i64]) -> nix::Result<Vec<(OwnedFd, OwnedFd)>> {
    let pidfd = crfs_sys::pidfd::open(nix::unistd::Pid::from_raw(host), false)?;
    let one = |at: usize| -> nix::Result<OwnedFd> {
        let number = results.get(at).and_then(|&number| i32::try_from(number).ok()).ok_or(Errno::EBADF)?;
        crfs_sys::pidfd::getfd(pidfd.as_fd(), number)
    };
    ends.iter().map(|&[first, second]| Ok((one(first)?, one(second)?))).collect()
}

/// Takes a user and group for what follows, but for the file system: the path's permissions were passed once.
fn become_user(batch: &mut Batch, SocketCredentials { uid, gid, .. }: SocketCredentials) {
    if gid != 0 {
        batch.call(libc::SYS_setresgid, &[SAME.into(), gid.into(), SAME.into()], "setresgid");
    }
    if uid != 0 {
        batch.call(libc::SYS_setresuid, &[SAME.into(), uid.into(), SAME.into()], "setresuid");
        batch.call(libc::SYS_setfsuid, &[0.into()], "setfsuid");
    }
}

fn become_root(batch: &mut Batch, SocketCredentials { uid, gid, .. }: SocketCredentials) {
    if uid != 0 {
        batch.call(libc::SYS_setresuid, &[SAME.into(), 0.into(), SAME.into()], "setresuid");
    }
    if gid != 0 {
        batch.call(libc::SYS_setresgid, &[SAME.into(), 0.into(), SAME.into()], "setresgid");
    }
}

/// Makes a call in this process, as a user. Its id cannot be had: it reads as 0.
fn as_worker<T>(who: Option<SocketCredentials>, call: impl FnOnce() -> nix::Result<T>) -> nix::Result<T> {
    let (uid, gid) = who.map_or((0, 0), |who| (who.uid, who.gid));
    setegid(Gid::from_raw(gid))?;
    let taken = seteuid(Uid::from_raw(uid));
    if taken.is_ok() {
        setfsuid(Uid::from_raw(0));
    }
    let result = taken.and_then(|()| call());
    seteuid(Uid::from_raw(0))?;
    setegid(Gid::from_raw(0))?;
    result
}

/// A failure of a call as one of an entry of the image.
pub(super) fn at_entry(failure: Failure, object: &str) -> Failure {
    let kind = if failure.kind == Kind::System { Kind::Incompatible } else { failure.kind };
    Failure { kind, ..failure.within(object.to_owned()) }
}

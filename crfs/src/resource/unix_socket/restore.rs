//! From the records to sockets with names, peers and all that was queued.

use super::calls::{Calls, at_entry};
use super::names::{self, Former};
use crate::failure::{Doing, Failure, Kind};
use crate::resource::socket::address::{self, Name};
use crate::resource::socket::options;
use crate::resource::socket::restore::{Processes, Site};
use crfs_sys::socket_options::{accept, connect};
use crfs_sys::socket_queue::{Credentials, send};
use image_format::files::FileKind;
use image_format::layout::file_entry;
use image_format::socket::{SocketCredentials, SocketStyle, UnixLink, UnixMessage, UnixName, UnixSocket};
use image_format::{FileId, Image, Pid};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Shutdown, shutdown};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// So many pairs are made at once: a process has four descriptors of each for a moment.
const AT_ONCE: usize = 64;

/// Makes every Unix socket of an image, in the network of the calling thread.
///
/// # Errors
/// [`Kind::Incompatible`] where a name is taken, [`Kind::BadImage`] for records that fit nothing.
pub(in crate::resource) fn restore(
    site: &Site<'_>,
    processes: &mut dyn Processes,
    open: &mut BTreeMap<FileId, OwnedFd>,
) -> Result<(), Failure> {
    let records: BTreeMap<FileId, &UnixSocket> = site
        .image
        .files
        .iter()
        .filter_map(|(&id, file)| match &file.kind {
            FileKind::UnixSocket(socket) => Some((id, &**socket)),
            _ => None,
        })
        .collect();
    let mut making =
        Making { site, records, calls: Calls { processes }, open, places: BTreeMap::new(), gone: BTreeMap::new() };
    making.single()?;
    making.pairs()?;
    making.names()?;
    making.listen()?;
    making.connections()?;
    making.each(Making::fill)?;
    making.each(Making::pending)?;
    making.each(Making::direct)?;
    making.each(Making::join)?;
    making.leave_closed()?;
    making.each(Making::finish)
}

/// The address that leads to a socket file through a descriptor of it, whatever the mounts are.
pub(super) fn through(place: BorrowedFd<'_>) -> Vec<u8> {
    address::unix(&Name::Path(format!("/proc/self/fd/{}", place.as_raw_fd()).into_bytes()))
}

struct Making<'a> {
    site: &'a Site<'a>,
    records: BTreeMap<FileId, &'a UnixSocket>,
    calls: Calls<'a>,
    open: &'a mut BTreeMap<FileId, OwnedFd>,
    /// The socket files of those that are bound to a path, as O_PATH descriptors.
    places: BTreeMap<FileId, File>,
    /// The other ends of those whose peer was closed, until that is so again.
    gone: BTreeMap<FileId, OwnedFd>,
}

impl<'a> Making<'a> {
    fn each(&mut self, part: fn(&mut Self, FileId, &'a UnixSocket) -> Result<(), Failure>) -> Result<(), Failure> {
        let records: Vec<(FileId, &UnixSocket)> = self.records.iter().map(|(&id, &socket)| (id, socket)).collect();
        records.into_iter().try_for_each(|(id, socket)| part(self, id, socket))
    }

    fn fd(&self, id: FileId) -> Result<BorrowedFd<'_>, Failure> {
        self.open.get(&id).map(AsFd::as_fd).ok_or(Errno::EBADF).doing(|| format!("{}: was not made", file_entry(id)))
    }

    /// A new socket, where that of an entry was made.
    fn fresh(&self, id: FileId, style: SocketStyle) -> Result<OwnedFd, Failure> {
        let fresh = || options::fresh(AddressFamily::Unix, style);
        self.site.where_it_was(id, || fresh().doing(|| format!("{}: making a socket", file_entry(id))))
    }

    /// The other end, where each is connected to the other, and both were made in one network.
    fn peer(&self, id: FileId, socket: &UnixSocket) -> Option<(FileId, &'a UnixSocket)> {
        let UnixLink::Connected(peer) = socket.link else { return None };
        let &other = self.records.get(&peer)?;
        let beside = |peer| self.site.image.network_of_socket(id) == self.site.image.network_of_socket(peer);
        (other.link == UnixLink::Connected(id) && beside(peer)).then_some((peer, other))
    }

    /// Sockets that are made alone: those without a peer, that listen, or that are connected one way.
    fn single(&mut self) -> Result<(), Failure> {
        self.each(|making, id, socket| {
            let alone = match socket.link {
                UnixLink::Unconnected | UnixLink::Listening(_) | UnixLink::External(_) => true,
                UnixLink::Connected(_) => making.peer(id, socket).is_none(),
                UnixLink::Closed(_) => false,
            };
            if alone {
                let fresh = making.fresh(id, socket.style)?;
                making.open.insert(id, fresh);
            }
            Ok(())
        })
    }

    /// Pairs of which neither end was accepted.
    fn pairs(&mut self) -> Result<(), Failure> {
        let mut seen = BTreeSet::new();
        let mut wanted = Vec::new();
        for (&id, socket) in &self.records {
            let peer = self.peer(id, socket);
            let accepted = was_accepted(socket) || peer.is_some_and(|(_, peer)| was_accepted(peer));
            if self.open.contains_key(&id) || accepted || !seen.insert(id) {
                continue;
            }
            seen.extend(peer.map(|(peer, _)| peer));
            wanted.push((id, *socket, peer.map(|(peer, _)| peer)));
        }
        // Those that come from one process are made in one go.
        let network = |id| self.site.image.network_of_socket(id);
        let are_alike = |(first, one, _): &(FileId, &UnixSocket, _), (second, next, _): &(FileId, &UnixSocket, _)| {
            (one.peer, one.style, network(*first)) == (next.peer, next.style, network(*second))
        };
        for alike in wanted.chunk_by(are_alike) {
            for alike in alike.chunks(AT_ONCE) {
                let (first, socket, _) = alike[0];
                let made = self.calls.pairs(socket.peer, socket.style, alike.len(), self.site.network(first));
                let made = made.map_err(|failure| at_entry(failure, &file_entry(first)))?;
                for (&(id, socket, peer), (one, two)) in alike.iter().zip(made) {
                    match peer {
                        Some(peer) => self.open.insert(peer, two),
                        None if matches!(socket.link, UnixLink::Closed(_)) => self.gone.insert(id, two),
                        None => None,
                    };
                    self.open.insert(id, one);
                }
            }
        }
        Ok(())
    }

    /// Names of those that are there, in the container's files.
    fn names(&mut self) -> Result<(), Failure> {
        let mut paths = Vec::new();
        for (&id, socket) in &self.records {
            let object = file_entry(id);
            let Some(fd) = self.open.get(&id) else {
                // The client of one that was accepted is bound before it connects.
                continue;
            };
            match &socket.name {
                Some(UnixName::Path(path)) => paths.push((id, fd.as_fd(), path)),
                Some(UnixName::Abstract(name)) => names::bind_abstract(fd.as_fd(), &name.0, &object)?,
                Some(UnixName::FormerPath(path)) => {
                    let place = names::bind_nowhere(fd.as_fd(), &path.0, self.site.staging, &object)?;
                    self.places.insert(id, place);
                }
                Some(UnixName::FormerAbstract(_) | UnixName::Accepted(_)) | None => {}
            }
        }
        self.places.extend(names::bind_paths(self.site, &paths)?);
        Ok(())
    }

    fn listen(&mut self) -> Result<(), Failure> {
        self.each(|making, id, socket| {
            let UnixLink::Listening(listening) = &socket.link else { return Ok(()) };
            let backlog = i32::try_from(listening.backlog).unwrap_or(i32::MAX);
            let fd = making.open.get(&id).ok_or(Errno::EBADF).doing(|| file_entry(id))?.as_fd();
            making.calls.listen(socket.peer, fd, backlog).map_err(|failure| at_entry(failure, &file_entry(id)))
        })
    }

    /// Those that were accepted, with their clients.
    fn connections(&mut self) -> Result<(), Failure> {
        self.each(|making, id, socket| {
            if making.open.contains_key(&id) || !was_accepted(socket) {
                return Ok(());
            }
            let peer = making.peer(id, socket);
            let client = making.fresh(id, socket.style)?;
            if let Some((peer, record)) = peer {
                making.bind_client(peer, record, client.as_fd())?;
            }
            let accepted = match &socket.name {
                Some(UnixName::Accepted(listener)) => making.connect(id, socket, *listener, client.as_fd())?,
                Some(UnixName::FormerPath(path)) => {
                    making.accept_from(id, socket, Former::Path(&path.0), client.as_fd())?
                }
                Some(UnixName::FormerAbstract(name)) => {
                    making.accept_from(id, socket, Former::Abstract(&name.0), client.as_fd())?
                }
                _ => return Ok(()),
            };
            making.open.insert(id, accepted);
            match peer {
                Some((peer, _)) => making.open.insert(peer, client),
                None => making.gone.insert(id, client),
            };
            Ok(())
        })
    }

    /// The name of a client, which it had before it connected.
    fn bind_client(&mut self, id: FileId, socket: &UnixSocket, fd: BorrowedFd<'_>) -> Result<(), Failure> {
        let object = file_entry(id);
        match &socket.name {
            Some(UnixName::Path(path)) => {
                self.places.extend(names::bind_paths(self.site, &[(id, fd, path)])?);
            }
            Some(UnixName::Abstract(name)) => names::bind_abstract(fd, &name.0, &object)?,
            Some(UnixName::FormerPath(path)) => {
                names::bind_nowhere(fd, &path.0, self.site.staging, &object)?;
            }
            Some(UnixName::FormerAbstract(_) | UnixName::Accepted(_)) | None => {}
        }
        Ok(())
    }

    /// Connects a client to a listening socket of the image, and accepts it there. `id` is the accepted one.
    fn connect(
        &mut self,
        id: FileId,
        socket: &UnixSocket,
        listener: FileId,
        client: BorrowedFd<'_>,
    ) -> Result<OwnedFd, Failure> {
        let object = file_entry(id);
        let address = self.address(listener)?;
        let place = self.places.get(&listener).map(AsFd::as_fd);
        let connected = self.calls.connect(socket.peer, client, &address, place);
        connected.map_err(|failure| at_entry(failure, &object))?;
        accept(self.fd(listener)?).doing(|| format!("{object}: accepting it"))
    }

    /// The address of a bound socket as a process of the container can use it; empty for one that only leads through its place.
    fn address(&self, id: FileId) -> Result<Vec<u8>, Failure> {
        let name = self.records.get(&id).and_then(|socket| socket.name.as_ref());
        Ok(match name {
            Some(UnixName::Path(path)) => {
                let path = names::absolute(path);
                let address = address::unix(&Name::Path(path.0));
                if address.len() <= names::SOCKADDR_MAX { address } else { Vec::new() }
            }
            Some(UnixName::Abstract(name)) => address::unix(&Name::Abstract(name.0.clone())),
            Some(UnixName::FormerPath(_)) => Vec::new(),
            _ => {
                let reason =
                    format!("{}: name: others are connected to it, and it has none of its own", file_entry(id));
                return Err(Failure::new(Kind::BadImage, reason));
            }
        })
    }

    /// Accepts from a listening socket that is made for it alone.
    fn accept_from(
        &mut self,
        id: FileId,
        socket: &UnixSocket,
        name: Former<'_>,
        client: BorrowedFd<'_>,
    ) -> Result<OwnedFd, Failure> {
        let object = file_entry(id);
        let listener = self.fresh(id, socket.style)?;
        let mut address = Vec::new();
        let place = match name {
            Former::Path(path) => Some(names::bind_nowhere(listener.as_fd(), path, self.site.staging, &object)?),
            Former::Abstract(name) => {
                names::bind_abstract(listener.as_fd(), name, &object)?;
                address = address::unix(&Name::Abstract(name.to_vec()));
                None
            }
        };
        // The client's SO_PEERCRED is that of who listened.
        let listens = self.peer(id, socket).and_then(|(_, peer)| peer.peer);
        let listening = self.calls.listen(listens, listener.as_fd(), 1);
        listening
            .and_then(|()| self.calls.connect(socket.peer, client, &address, place.as_ref().map(AsFd::as_fd)))
            .map_err(|failure| at_entry(failure, &object))?;
        accept(listener.as_fd()).doing(|| format!("{object}: accepting it"))
    }

    /// Puts into a socket what waited in it.
    fn fill(&mut self, id: FileId, socket: &'a UnixSocket) -> Result<(), Failure> {
        if socket.queued.is_empty() {
            return Ok(());
        }
        let object = file_entry(id);
        let data = self.site.queue(id, socket.queue_size())?;
        let mut rest = data.as_slice();
        for message in &socket.queued {
            let bytes = next(&mut rest, message);
            let credentials = self.credentials(message);
            let mut passing = None;
            let (sender, to) = self.sender(id, socket, message.from, &mut passing)?;
            let files = self.files(message)?;
            let sending = Sending { bytes, files, credentials, to, style: socket.style, room: data.len() };
            sending.through(sender).doing(|| format!("{object}: putting a message into it"))?;
        }
        Ok(())
    }

    /// Who is to be told as the sender of a message.
    fn credentials(&mut self, message: &UnixMessage) -> Option<Credentials> {
        let who = message.credentials?;
        let pid = self.calls.processes.host(who.pid).filter(|_| who.pid != Pid(0));
        Some(Credentials { pid: pid.unwrap_or(std::process::id().cast_signed()), uid: who.uid, gid: who.gid })
    }

    fn files(&self, message: &UnixMessage) -> Result<Vec<BorrowedFd<'_>>, Failure> {
        message.files.iter().map(|&file| self.fd(file)).collect()
    }

    /// Who sends a message again, and to which address: none where it is connected.
    fn sender<'s>(
        &'s self,
        id: FileId,
        socket: &UnixSocket,
        from: Option<FileId>,
        passing: &'s mut Option<OwnedFd>,
    ) -> Result<(BorrowedFd<'s>, Vec<u8>), Failure> {
        if let Some(gone) = self.gone.get(&id) {
            return Ok((gone.as_fd(), Vec::new()));
        }
        if let Some((peer, _)) = self.peer(id, socket) {
            return Ok((self.fd(peer)?, Vec::new()));
        }
        let to = match self.places.get(&id) {
            Some(place) => through(place.as_fd()),
            None => self.address(id)?,
        };
        match from {
            Some(from) => Ok((self.fd(from)?, to)),
            None => {
                let passing: &OwnedFd = passing.insert(self.fresh(id, socket.style)?);
                Ok((passing.as_fd(), to))
            }
        }
    }

    /// The clients that nobody has accepted yet, in their order: each connects, and sends what it had sent.
    fn pending(&mut self, id: FileId, socket: &'a UnixSocket) -> Result<(), Failure> {
        let UnixLink::Listening(listening) = &socket.link else { return Ok(()) };
        if listening.pending.is_empty() {
            return Ok(());
        }
        // What accept(2) returns has taken over SO_PASSCRED and its like when the client connected.
        options::restore_last(self.fd(id)?, &socket.options, (socket.uid, socket.gid), &file_entry(id))?;
        let address = self.address(id)?;
        let data = self.site.queue(id, socket.queue_size())?;
        let mut rest = data.as_slice();
        for pending in &listening.pending {
            let entry = pending.client.unwrap_or(id);
            // One that was closed is closed again at the end of its turn.
            let client = match pending.client {
                Some(client) => self.fd(client)?.try_clone_to_owned().doing(|| file_entry(client))?,
                None => self.fresh(id, socket.style)?,
            };
            let place = self.places.get(&id).map(AsFd::as_fd);
            let connected = self.calls.connect(Some(pending.connected), client.as_fd(), &address, place);
            connected.map_err(|failure| at_entry(failure, &file_entry(entry)))?;
            for message in &pending.queued {
                let bytes = next(&mut rest, message);
                let credentials = self.credentials(message);
                let files = self.files(message)?;
                let sending =
                    Sending { bytes, files, credentials, to: Vec::new(), style: socket.style, room: data.len() };
                sending.through(client.as_fd()).doing(|| format!("{}: sending again", file_entry(entry)))?;
            }
        }
        Ok(())
    }

    /// A datagram socket that is connected to one that is not connected to it.
    fn direct(&mut self, id: FileId, socket: &'a UnixSocket) -> Result<(), Failure> {
        let UnixLink::Connected(to) = socket.link else { return Ok(()) };
        if socket.style != SocketStyle::Datagram || self.peer(id, socket).is_some() {
            return Ok(());
        }
        let address = match self.places.get(&to) {
            Some(place) => through(place.as_fd()),
            None => self.address(to)?,
        };
        connect(self.fd(id)?, &address).doing(|| format!("{}: connecting to {}", file_entry(id), file_entry(to)))
    }

    /// Connects to a socket outside of the container, in a process that holds the socket: its credentials are what the other end sees.
    fn join(&mut self, id: FileId, socket: &'a UnixSocket) -> Result<(), Failure> {
        let UnixLink::External(external) = &socket.link else { return Ok(()) };
        let fd = self.open.get(&id).ok_or(Errno::EBADF).doing(|| file_entry(id))?.as_fd();
        let name = match external.path.0.strip_prefix(b"@") {
            Some(name) => Name::Abstract(name.to_vec()),
            None => Name::Path(external.path.0.clone()),
        };
        let address = address::unix(&name);
        let connected = self.calls.connect(holder(self.site.image, id), fd, &address, None);
        connected.map_err(|failure| {
            at_entry(failure, &format!("{}: link: external: {} cannot be joined here", file_entry(id), external.path))
        })
    }

    /// Closes the other ends that were closed.
    fn leave_closed(&mut self) -> Result<(), Failure> {
        for (id, other) in std::mem::take(&mut self.gone) {
            if let Some(UnixLink::Closed(closed)) = self.records.get(&id).map(|socket| &socket.link)
                && closed.reset
            {
                // Data that is not read when it is closed is what the error tells of.
                send(self.fd(id)?, &[0], &[], None, &[]).doing(|| file_entry(id))?;
            }
            drop(other);
        }
        Ok(())
    }

    /// Shutdown, options, owner.
    fn finish(&mut self, id: FileId, socket: &'a UnixSocket) -> Result<(), Failure> {
        let object = file_entry(id);
        let fd = self.fd(id)?;
        for (shut, how) in [(socket.receive_shut, Shutdown::Read), (socket.send_shut, Shutdown::Write)] {
            if shut {
                shutdown(fd.as_raw_fd(), how).doing(|| format!("{object}: shutting it down"))?;
            }
        }
        options::restore_first(fd, &socket.options, &object)?;
        options::restore_last(fd, &socket.options, (socket.uid, socket.gid), &object)
    }
}

/// The first process that holds a description, and its effective user and group.
fn holder(image: &Image, id: FileId) -> Option<SocketCredentials> {
    let pid = image.tables().find(|table| table.fds.iter().any(|fd| fd.file == id))?.process;
    let credentials = &image.processes.get(&pid)?.first_thread()?.1.attr.credentials;
    Some(SocketCredentials { pid, uid: credentials.uid[1], gid: credentials.gid[1] })
}

/// Whether it came out of accept(2).
fn was_accepted(socket: &UnixSocket) -> bool {
    let connected = matches!(socket.link, UnixLink::Connected(_) | UnixLink::Closed(_));
    let name =
        matches!(socket.name, Some(UnixName::Accepted(_) | UnixName::FormerPath(_) | UnixName::FormerAbstract(_)));
    connected && name && socket.style != SocketStyle::Datagram
}

/// The bytes of a message, off the front of what lies in a raw file.
fn next<'d>(rest: &mut &'d [u8], message: &UnixMessage) -> &'d [u8] {
    let length = usize::try_from(message.length).unwrap_or(usize::MAX).min(rest.len());
    let (bytes, after) = rest.split_at(length);
    *rest = after;
    bytes
}

/// A message that is sent again.
struct Sending<'a> {
    bytes: &'a [u8],
    files: Vec<BorrowedFd<'a>>,
    credentials: Option<Credentials>,
    /// None of these where it is connected.
    to: Vec<u8>,
    style: SocketStyle,
    /// Bytes that the sender's buffer must have room for: nobody takes them meanwhile.
    room: usize,
}

impl Sending<'_> {
    fn through(&self, sender: BorrowedFd<'_>) -> nix::Result<()> {
        let old = options::make_room(sender, libc::SO_SNDBUF, self.room as u64)?;
        let mut sent = send(sender, self.bytes, &self.files, self.credentials, &self.to)?;
        while sent < self.bytes.len() && self.style == SocketStyle::Stream {
            match send(sender, &self.bytes[sent..], &[], self.credentials, &self.to)? {
                0 => break,
                more => sent += more,
            }
        }
        if sent < self.bytes.len() {
            return Err(Errno::EMSGSIZE);
        }
        options::set_size(sender, libc::SO_SNDBUF, old)
    }
}

//! From what sock_diag and the duplicate tell to the record.

use super::diag::{self, Diag};
use crate::external::External;
use crate::failure::{Doing, Failure};
use crate::resource::descriptor::holders::Kernel;
use crate::resource::descriptor::in_flight::Queued;
use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::reopen;
use crate::resource::socket::address::{self, Name};
use crate::resource::socket::capture::{self as common, Socket, Usual};
use crate::resource::socket::inside;
use crfs_sys::socket_queue::{Credentials, condition};
use image_format::files::FileKind;
use image_format::socket::{
    SocketCredentials, SocketOptions, SocketStyle, UnixClosed, UnixExternal, UnixFile, UnixLink, UnixMessage, UnixName,
    UnixPath, UnixSocket,
};
use image_format::{Bytes, FileId, Octal, Pid};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::Metadata;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;

/// What belongs to all sockets of a container.
pub(in crate::resource) struct Context<'a> {
    /// The container's processes by host pid.
    pub(in crate::resource) pids: HashMap<i32, Pid>,
    /// Its first process.
    pub(in crate::resource) init: i32,
    /// Its root directory.
    pub(in crate::resource) root: BorrowedFd<'a>,
    /// Those of processes that have a mount namespace apart.
    pub(in crate::resource) roots_apart: BTreeMap<Pid, BorrowedFd<'a>>,
    /// What connections may lead to outside of the container.
    pub(in crate::resource) external: &'a [External],
    /// What waits in each socket; None where tasks run, and no queue is looked at.
    pub(in crate::resource) queues: Option<&'a HashMap<FileId, Vec<Queued>>>,
    /// Kernel memory; None where tasks run.
    pub(in crate::resource) kernel: Option<&'a Kernel<'a>>,
    /// The description of an identity that kernel memory tells, if a process of the container holds it.
    pub(in crate::resource) description: &'a dyn Fn(u64) -> Option<FileId>,
}

/// A captured socket: its record, and the bytes queued in it.
type Captured = (FileKind, Vec<u8>);

/// Captures Unix sockets, all at once: they name each other.
///
/// # Errors
/// When the network cannot be asked.
pub(in crate::resource) fn capture(
    sockets: &[Socket<'_>],
    context: &Context<'_>,
    usual: &mut Usual,
) -> Result<Vec<Result<Captured, Refusal>>, Failure> {
    if sockets.is_empty() {
        return Ok(Vec::new());
    }
    let mut diags = HashMap::new();
    for host in sockets.iter().map(|socket| socket.host).collect::<BTreeSet<i32>>() {
        let dump = || diag::dump(host).doing(|| "sock_diag: listing Unix sockets");
        diags.extend(inside::in_network(host, dump)?);
    }
    let none = Diag::default();
    let of = |socket: &Socket<'_>| diags.get(&socket.inode()).unwrap_or(&none);
    let all = All {
        by_inode: sockets.iter().map(|socket| (socket.inode(), socket.id)).collect(),
        listeners: sockets.iter().filter(|socket| of(socket).backlog > 0 && is_listening(socket)).collect(),
        pending: sockets
            .iter()
            .flat_map(|socket| of(socket).pending.iter().map(move |&client| (u64::from(client), socket.id)))
            .collect(),
        diags: &diags,
        sockets,
        context,
    };
    let mut options = options(sockets, usual)?;
    let one = |socket: &Socket<'_>| {
        all.one(socket, of(socket), options.remove(&socket.id).unwrap_or(Ok(SocketOptions::default())))
    };
    sockets.iter().map(one).collect()
}

/// The options of each socket, as far as they can be asked for; there are some twenty of them.
fn options(
    sockets: &[Socket<'_>],
    usual: &mut Usual,
) -> Result<HashMap<FileId, Result<SocketOptions, Failure>>, Failure> {
    let mut options = HashMap::new();
    let mut kinds: HashMap<(SocketStyle, i32), Vec<&Socket<'_>>> = HashMap::new();
    for socket in sockets {
        kinds.entry((socket.style_or_datagram(), socket.host)).or_default().push(socket);
    }
    for ((style, host), alike) in kinds {
        let asked: Vec<_> = alike.iter().map(|socket| socket.ask()).collect();
        let answers = usual.options_of_all(&asked, (libc::AF_UNIX, style), host)?;
        options.extend(alike.into_iter().map(|socket| socket.id).zip(answers));
    }
    Ok(options)
}

fn is_listening(socket: &Socket<'_>) -> bool {
    let asked = crfs_sys::socket_options::get_number(socket.ask(), libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
    asked == Ok(1)
}

/// What a socket is called in messages.
fn describe(style: SocketStyle, name: Option<&Name>) -> String {
    let style = match style {
        SocketStyle::Stream => "stream",
        SocketStyle::Datagram => "datagram",
        SocketStyle::Seqpacket => "packet",
    };
    match name {
        Some(name) => format!("a Unix {style} socket at {}", name.text()),
        None => format!("a Unix {style} socket without a name"),
    }
}

pub(super) struct All<'a> {
    sockets: &'a [Socket<'a>],
    diags: &'a HashMap<u64, Diag>,
    pub(super) by_inode: HashMap<u64, FileId>,
    listeners: Vec<&'a Socket<'a>>,
    /// The listening socket that each client waits at, by the client's inode.
    pending: HashMap<u64, FileId>,
    pub(super) context: &'a Context<'a>,
}

impl All<'_> {
    fn one(
        &self,
        socket: &Socket<'_>,
        diag: &Diag,
        options: Result<SocketOptions, Failure>,
    ) -> Result<Result<Captured, Refusal>, Failure> {
        let style = socket.style_or_datagram();
        let what = describe(style, diag.name.as_ref());
        let refused = common::refused(socket, &what).doing(|| format!("{what}: asking for its options"))?;
        if let Some(refusal) = refused {
            return Ok(Err(refusal));
        }
        let options = options?;
        let parts = self.link(socket, style, diag, &what).and_then(|(link, mut bytes)| {
            let name = self.name(socket, diag, &link)?;
            let queued = self.queue(socket, &what, &mut bytes)?;
            Ok((link, name, queued, bytes))
        });
        let (link, name, queued, bytes) = match parts {
            Ok(parts) => parts,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let peer = match style {
            SocketStyle::Datagram => None,
            _ => self.peer(socket).doing(|| format!("{what}: asking for SO_PEERCRED"))?,
        };
        let record = UnixSocket {
            style,
            name,
            link,
            receive_shut: diag.receive_shut,
            send_shut: diag.send_shut,
            peer,
            uid: socket.seen.metadata.uid(),
            gid: socket.seen.metadata.gid(),
            options,
            queued,
        };
        Ok(Ok((FileKind::UnixSocket(record.into()), bytes)))
    }

    /// What it is connected to. Of a listening socket also the bytes that wait in connections.
    fn link(
        &self,
        socket: &Socket<'_>,
        style: SocketStyle,
        diag: &Diag,
        what: &str,
    ) -> Result<(UnixLink, Vec<u8>), Refusal> {
        if is_listening(socket) {
            let (listening, bytes) = self.listening(socket, style, diag, what)?;
            return Ok((UnixLink::Listening(listening), bytes));
        }
        self.connection(socket, style, diag, what).map(|link| (link, Vec::new()))
    }

    fn connection(
        &self,
        socket: &Socket<'_>,
        style: SocketStyle,
        diag: &Diag,
        what: &str,
    ) -> Result<UnixLink, Refusal> {
        let Some(peer) = diag.peer else { return Ok(UnixLink::Unconnected) };
        if let Some(listener) = self.pending.get(&socket.inode()) {
            return Ok(UnixLink::Connected(*listener));
        }
        if let Some(&peer) = self.by_inode.get(&u64::from(peer)).filter(|_| peer != 0) {
            return Ok(UnixLink::Connected(peer));
        }
        // One that has not accepted it yet has no inode either. What was closed has shut both ways.
        let awaits = style != SocketStyle::Datagram && !(diag.receive_shut && diag.send_shut);
        if peer != 0 || awaits {
            return self.external(socket, style, diag, what).map(UnixLink::External);
        }
        let failed = condition(socket.ask()).is_ok_and(|condition| condition.failed);
        if failed && style == SocketStyle::Datagram {
            return Err(common::has_error(what));
        }
        Ok(UnixLink::Closed(UnixClosed { reset: failed }))
    }

    /// A connection to a socket outside of the container, which must be declared.
    fn external(
        &self,
        socket: &Socket<'_>,
        style: SocketStyle,
        diag: &Diag,
        what: &str,
    ) -> Result<UnixExternal, Refusal> {
        let address = crfs_sys::socket_options::peer_address(socket.ask()).unwrap_or_default();
        // One that was accepted cannot connect.
        let name = address::unix_name(&address).filter(|_| self.listener_of(diag).is_none());
        let path = match name {
            Some(Name::Path(path)) if path.starts_with(b"/") => path,
            Some(Name::Abstract(name)) => [b"@".as_slice(), &name].concat(),
            _ => {
                return Err(Refusal::new(
                    format!("{what} is connected to one that is held outside the container"),
                    "Run both sides of the connection in the container, or have the program close it before the freeze.",
                ));
            }
        };
        let declared = self.context.external.iter().any(|external| external.is_at(&path));
        let path = Bytes(path);
        if !declared {
            return Err(Refusal::new(
                format!("{what} is connected to one at {path}, which is held outside the container"),
                format!(
                    "Run both sides of the connection in the container, or freeze with `--external unix:{path}`: a restore connects anew then."
                ),
            ));
        }
        let queued = self.context.queues.and_then(|queues| queues.get(&socket.id));
        if style != SocketStyle::Datagram && queued.is_some_and(|queued| !queued.is_empty()) {
            return Err(Refusal::new(
                format!(
                    "{what} holds data from {path}, outside the container, and cannot be carried: only that one could send it again"
                ),
                "Try again when the program has read it.",
            ));
        }
        Ok(UnixExternal { path })
    }

    fn name(&self, socket: &Socket<'_>, diag: &Diag, link: &UnixLink) -> Result<Option<UnixName>, Refusal> {
        let Some(name) = &diag.name else { return Ok(None) };
        if socket.style != Some(SocketStyle::Datagram) && matches!(link, UnixLink::Connected(_) | UnixLink::Closed(_)) {
            // Either accepted, with the name of the socket that listened, or bound before it was connected.
            if let Some(listener) = self.listener_of(diag) {
                return Ok(Some(UnixName::Accepted(listener)));
            }
            let peer = diag.peer.and_then(|peer| self.diags.get(&u64::from(peer)));
            let client = peer.is_some_and(|peer| self.listener_of(peer).is_some()) || is_automatic(name);
            if !client {
                return Ok(Some(former(name)));
            }
        }
        match name {
            Name::Abstract(name) => Ok(Some(UnixName::Abstract(Bytes(name.clone())))),
            Name::Path(path) => self.path(socket, path, diag.file).map(Some),
        }
    }

    /// The listening socket of the same name. Abstract names are those of one network.
    fn listener_of(&self, diag: &Diag) -> Option<FileId> {
        let same = |listener: &&&Socket<'_>| {
            self.diags.get(&listener.inode()).is_some_and(|other| {
                (&other.name, other.file) == (&diag.name, diag.file)
                    && (diag.file.is_some() || other.network == diag.network)
            })
        };
        self.listeners.iter().find(same).map(|listener| listener.id)
    }

    /// The path of a bound socket, and whether its file still stands there.
    fn path(&self, socket: &Socket<'_>, path: &[u8], file: Option<u32>) -> Result<UnixName, Refusal> {
        let relative = !path.starts_with(b"/");
        let directory = relative.then(|| self.directory(socket)).flatten();
        let place = match &directory {
            Some(directory) => [directory.0.as_slice(), b"/", path].concat(),
            None => path.to_vec(),
        };
        let place = Bytes(place);
        let look = |root: BorrowedFd<'_>| {
            let found = reopen::look(root, &place).and_then(|found| found.metadata()).ok();
            found.filter(|found| {
                found.mode() & libc::S_IFMT == libc::S_IFSOCK
                    && file.is_some_and(|file| found.ino() & 0xffff_ffff == u64::from(file))
            })
        };
        let there = look(self.context.root);
        let identity = |found: &Metadata| (found.dev(), found.ino());
        let apart = self.context.roots_apart.get(&socket.seen.holder.pid).copied().and_then(look);
        if apart.as_ref().is_some_and(|apart| there.as_ref().map(identity) != Some(identity(apart))) {
            return Err(Refusal::new(
                format!(
                    "a Unix socket is bound to {place}, which only a mount namespace apart shows, and cannot be carried"
                ),
                "Have the program bind it where all of the container finds it.",
            ));
        }
        match there {
            Some(found) => {
                let file = UnixFile { mode: Octal(found.mode() & 0o7777), uid: found.uid(), gid: found.gid() };
                Ok(UnixName::Path(UnixPath { path: Bytes(path.to_vec()), directory, file }))
            }
            None if relative => Err(Refusal::new(
                format!(
                    "a Unix socket is bound to the relative path {}, which is not found in its process's working directory",
                    Bytes(path.to_vec())
                ),
                "Have the program bind it to an absolute path.",
            )),
            None => Ok(UnixName::FormerPath(Bytes(path.to_vec()))),
        }
    }

    /// The working directory of the process that holds it, as the container names it.
    fn directory(&self, socket: &Socket<'_>) -> Option<Bytes> {
        let link = |name: &str| {
            let path = std::fs::read_link(format!("/proc/{}/{name}", socket.seen.holder.host)).ok()?;
            Some(path.into_os_string().into_vec())
        };
        let (directory, root) = (link("cwd")?, link("root")?);
        let inside = if root == b"/" { directory } else { directory.strip_prefix(root.as_slice())?.to_vec() };
        Some(Bytes(if inside.is_empty() { b"/".to_vec() } else { inside }))
    }

    /// What waits in it; its bytes are added to those given.
    fn queue(&self, socket: &Socket<'_>, what: &str, bytes: &mut Vec<u8>) -> Result<Vec<UnixMessage>, Refusal> {
        let mut messages = Vec::new();
        let queued = self.context.queues.and_then(|queues| queues.get(&socket.id));
        for message in queued.into_iter().flatten() {
            bytes.extend_from_slice(&message.data);
            messages.push(UnixMessage {
                length: message.data.len() as u64,
                from: self.sender(socket, message, what)?,
                credentials: message.credentials.map(|credentials| self.credentials(credentials)),
                files: message.files.clone(),
            });
        }
        Ok(messages)
    }

    fn sender(&self, socket: &Socket<'_>, message: &Queued, what: &str) -> Result<Option<FileId>, Refusal> {
        if socket.style != Some(SocketStyle::Datagram) {
            return Ok(None);
        }
        let Some(name) = address::unix_name(&message.from) else { return Ok(None) };
        let has_it = |other: &&Socket<'_>| {
            other.style == Some(SocketStyle::Datagram)
                && self.diags.get(&other.inode()).is_some_and(|diag| diag.name.as_ref() == Some(&name))
        };
        // Of those that have it in different networks the one beside it reaches it.
        let sender = self.sockets.iter().filter(has_it).min_by_key(|sender| sender.network != socket.network);
        sender.map(|sender| Some(sender.id)).ok_or_else(|| {
            Refusal::new(
                format!("{what} holds a message from {}, a socket that is gone or outside the container", name.text()),
                "Try again when the program has read it.",
            )
        })
    }

    pub(super) fn credentials(&self, Credentials { pid, uid, gid }: Credentials) -> SocketCredentials {
        SocketCredentials { pid: self.context.pids.get(&pid).copied().unwrap_or(Pid(0)), uid, gid }
    }

    /// SO_PEERCRED: `struct ucred`.
    fn peer(&self, socket: &Socket<'_>) -> nix::Result<Option<SocketCredentials>> {
        let mut value = [0; 12];
        crfs_sys::socket_options::get(socket.ask(), libc::SOL_SOCKET, libc::SO_PEERCRED, &mut value)?;
        let word = |at: usize| u32::from_ne_bytes([value[at], value[at + 1], value[at + 2], value[at + 3]]);
        // Nobody ever called anything that leaves credentials here.
        let nobody = word(0) == 0 && word(4) == u32::MAX;
        let pid = word(0).cast_signed();
        Ok((!nobody).then(|| self.credentials(Credentials { pid, uid: word(4), gid: word(8) })))
    }
}

/// A name that the kernel chose (unix(7), autobind): five hexadecimal digits.
fn is_automatic(name: &Name) -> bool {
    matches!(name, Name::Abstract(name) if name.len() == 5 && name.iter().all(u8::is_ascii_hexdigit))
}

fn former(name: &Name) -> UnixName {
    match name {
        Name::Path(path) => UnixName::FormerPath(Bytes(path.clone())),
        Name::Abstract(name) => UnixName::FormerAbstract(Bytes(name.clone())),
    }
}

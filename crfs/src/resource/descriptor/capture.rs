//! The pass over everything that is open.

use super::gather::{Description, Table};
use super::holders::Kernel;
use super::in_flight::{self, InFlight};
use super::place::{Apart, OpenPlace};
use super::refused::{self, Refusal};
use super::seen::{Holder, Seen};
use super::{Descriptors, TableOf, streams};
use crate::console::Pause;
use crate::external::External;
use crate::failure::{Doing, Failure, Kind};
use crate::resource::met::Met;
use crate::resource::mount::Views;
use crate::resource::socket::capture::Socket;
use crate::resource::socket::network::{Network, Networks};
use crate::resource::{
    Findings, device, directory, ended_task, epoll, eventfd, fanotify, inet_socket, inotify, io_uring, lock, namespace,
    netlink_socket, owner, path_only, pidfd, pipe, pseudo_file, regular_file, signalfd, socket, timerfd, tty,
    unix_socket,
};
use crfs_kstate::{KernelState, Task};
use image_format::ended::EndedTask;
use image_format::files::{File, FileKind, OpenFlags, Owner, PseudoFile, Stdio, Stream};
use image_format::layout::table_file;
use image_format::locks::{Lock, LockKind};
use image_format::process::Fd;
use image_format::tty::Tty;
use image_format::{Bytes, FileId, Pid};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Bytes that a file which only a message holds may have: they are copied, as all that waits in queues.
const MOST_IN_MESSAGE: u64 = 64 << 20;

/// Whose descriptors are captured.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// The descriptor tables.
    pub tables: &'a [TableOf],
    /// All processes of the container, as it and as the host numbers them.
    pub processes: &'a [(Pid, i32)],
    /// The process whose namespaces are the container's own, as the host numbers it.
    pub init: i32,
    /// A process of each ipc namespace that some have apart, in order, likewise.
    pub ipc: &'a [i32],
    /// What connections may lead to outside of the container.
    pub external: &'a [External],
    /// The mount namespaces that some processes have apart.
    pub views: &'a Views,
}

/// Captures descriptor tables.
///
/// With `kstate` every task is frozen, and traced by the calling thread. Without it the tasks run: only what stands in the way is
/// looked for, no queue is read, and what comes or goes meanwhile is passed over. Obstacles are added to `findings`, one for
/// each open file description; such a description is not among the records. `root` leads to the
/// container's root directory, `log` is the container's log on the host, and `console` its console, which must stand still like
/// the tasks.
///
/// # Errors
/// When /proc cannot be read, or something changes although it is frozen ([`Kind::Stale`]).
pub fn capture(
    whose: Whose<'_>,
    kstate: Option<(&KernelState, &BTreeMap<i32, Task>)>,
    root: &Path,
    log: &Path,
    console: Option<&Pause>,
    met: &mut Met,
    findings: &mut Findings,
) -> Result<Descriptors, Failure> {
    let mut tables = whose.tables.to_vec();
    tables.sort_unstable();
    if tables.is_empty() {
        return Ok(Descriptors::default());
    }
    let kernel = kstate.map(Kernel::new);
    let place = match OpenPlace::open(root, log) {
        Err(_) if kernel.is_none() => return Ok(Descriptors::default()),
        other => other?,
    };
    let apart = Apart::open(whose.views, log)?;
    let mut table = Table::gather(&tables, kernel.as_ref())?;
    let in_flight = kernel.as_ref().map(|_| in_flight::gather(&mut table)).transpose()?;
    let mut pass = Pass {
        table: &table,
        kernel: kernel.as_ref(),
        console,
        findings,
        met,
        drafts: Vec::new(),
        streams: BTreeSet::new(),
        log,
        owners: BTreeMap::new(),
        elsewhere: BTreeMap::new(),
        networks: BTreeMap::new(),
        out: Descriptors::default(),
    };
    pass.each(whose, &place, &apart);
    pass.unnamed()?;
    pass.rings();
    pass.owners(whose)?;
    pass.pipes(whose)?;
    pass.queues(whose)?;
    pass.ttys(whose, &place)?;
    pass.sockets(whose, &place, &apart, in_flight.as_ref())?;
    pass.epolls()?;
    pass.locks();
    pass.finish(&tables, &place);
    Ok(pass.out)
}

/// A description on its way to a record.
pub(super) enum Draft {
    Done(FileKind),
    /// An end of a pipe, with its path if it has a name.
    Pipe {
        path: Option<Bytes>,
    },
    Queue,
    Tty,
    Socket,
    Epoll(Vec<epoll::Target>),
    Refused,
}

impl Draft {
    /// Whether it is opened only when the processes are there.
    fn is_opened_late(&self) -> bool {
        matches!(self, Draft::Done(kind) if !kind.can_be_locked())
    }
}

pub(super) struct Pass<'a> {
    pub(super) table: &'a Table,
    pub(super) kernel: Option<&'a Kernel<'a>>,
    pub(super) console: Option<&'a Pause>,
    pub(super) findings: &'a mut Findings,
    met: &'a mut Met,
    /// One for each description of the table.
    pub(super) drafts: Vec<Draft>,
    /// Descriptions that lead outside, and are joined to the container's log by a restore.
    pub(super) streams: BTreeSet<usize>,
    pub(super) log: &'a Path,
    owners: BTreeMap<usize, Owner>,
    /// The mount namespaces apart whose paths descriptions have.
    elsewhere: BTreeMap<usize, u32>,
    /// The first process of the network namespace apart that a socket was made in.
    networks: BTreeMap<usize, Pid>,
    pub(super) out: Descriptors,
}

impl Pass<'_> {
    /// What can be told of each description by itself.
    fn each(&mut self, whose: Whose<'_>, place: &OpenPlace, apart: &Apart<'_>) {
        for (holder, error) in &self.table.unreadable {
            let refusal = Refusal::new(
                format!("what it names cannot be looked at: {error}"),
                "Have the program close it, or bring back the file system it is on.",
            );
            self.refuse(*holder, refusal);
        }
        for (index, Description { seen, .. }) in self.table.descriptions.iter().enumerate() {
            let elsewhere = apart.of(seen);
            let place = elsewhere.map_or(place, |(_, place)| place);
            let draft = match draft(seen, whose, place, self.kernel, self.met) {
                Ok(draft) => draft,
                Err(refusal) => match self.file_outside(index, whose) {
                    Ok(kind) => Draft::Done(kind),
                    Err(may_be_declared) => {
                        self.refuse(seen.holder, if may_be_declared { streams::declare(refusal) } else { refusal });
                        Draft::Refused
                    }
                },
            };
            if matches!(draft, Draft::Done(_) | Draft::Pipe { .. }) {
                self.elsewhere.extend(elsewhere.map(|(number, _)| (index, number)));
            }
            self.drafts.push(draft);
        }
    }

    /// Who is signalled about what is carried.
    fn owners(&mut self, whose: Whose<'_>) -> Result<(), Failure> {
        for (index, Description { seen, holders, .. }) in self.table.descriptions.iter().enumerate() {
            if matches!(self.drafts[index], Draft::Refused) {
                continue;
            }
            match owner::capture(seen, holders, whose.processes, whose.init) {
                Ok(Ok(owner)) => self.owners.extend(owner.map(|owner| (index, owner))),
                Ok(Err(refusal)) => {
                    self.drafts[index] = Draft::Refused;
                    self.refuse(seen.holder, refusal);
                }
                // Closed meanwhile, by tasks that run.
                Err(_) if self.kernel.is_none() => {}
                Err(failure) => return Err(failure.within(object(seen.holder))),
            }
        }
        Ok(())
    }

    /// The content of a file without a name is read through a process that holds it. Of one that only messages carry it is read now.
    fn unnamed(&mut self) -> Result<(), Failure> {
        for index in 0..self.drafts.len() {
            let Draft::Done(FileKind::Unnamed(record)) = &self.drafts[index] else { continue };
            let (number, seen) = (record.file, &self.table.descriptions[index].seen);
            if self.met.unnamed.is_held(number) || self.out.unnamed.contains_key(&number) {
                continue;
            }
            if seen.metadata.len() > MOST_IN_MESSAGE {
                self.refuse(seen.holder, refused::unnamed_in_message(&seen.name(), MOST_IN_MESSAGE));
                self.drafts[index] = Draft::Refused;
                continue;
            }
            let content = std::fs::read(seen.holder.path());
            let content = content.doing(|| format!("{}: reading what a message holds", seen.name()))?;
            self.out.unnamed.insert(number, content);
        }
        Ok(())
    }

    /// The memory that each ring of io_uring shares with its program.
    fn rings(&mut self) {
        for index in 0..self.drafts.len() {
            let Draft::Done(FileKind::IoUring(ring)) = &self.drafts[index] else { continue };
            let seen = &self.table.descriptions[index].seen;
            match io_uring::memory(seen, ring) {
                Ok(memory) => drop(self.out.sockets.insert(id(index), memory)),
                Err(refusal) => {
                    self.refuse(seen.holder, refusal);
                    self.drafts[index] = Draft::Refused;
                }
            }
        }
    }

    /// Puts the sides of each terminal together.
    fn ttys(&mut self, whose: Whose<'_>, place: &OpenPlace) -> Result<(), Failure> {
        let mut pairs: BTreeMap<u32, Vec<(usize, tty::Side)>> = BTreeMap::new();
        for index in 0..self.drafts.len() {
            let Draft::Tty = self.drafts[index] else { continue };
            let seen = &self.table.descriptions[index].seen;
            // Of those whose processes run, a refusal is all there is to tell.
            self.drafts[index] = Draft::Refused;
            let side = match self.kernel.map(|kernel| kernel.task(seen.holder.host)) {
                None => tty::check(seen, place).map_or(Ok(None), Err),
                Some(Some((state, task))) => tty::look(seen, place, state, task)?.map(Some),
                Some(None) => return Err(gone(seen.holder)),
            };
            match side {
                Ok(None) => {}
                Ok(Some(side)) => {
                    self.drafts[index] = Draft::Done(FileKind::Tty(side.record.clone()));
                    if !side.record.hung_up {
                        pairs.entry(side.record.number).or_default().push((index, side));
                    }
                }
                Err(refusal) => self.refuse(seen.holder, refusal),
            }
        }
        for (number, sides) in pairs {
            let table = self.table;
            let all: Vec<_> = sides.iter().map(|(index, side)| (&table.descriptions[*index].seen, side)).collect();
            let holder = all[0].0.holder;
            let Some((state, task)) = self.kernel.and_then(|kernel| kernel.task(holder.host)) else {
                return Err(gone(holder));
            };
            let console = self.console.filter(|console| console.number == number).map(|console| &console.shown[..]);
            let declared = || self.terminal_outside(sides.iter().map(|(index, _)| *index), whose);
            match tty::capture(&all, place, console.or_else(declared), state, task)? {
                Ok(pty) => {
                    self.out.ttys.insert(number, pty);
                }
                Err(refusal) => {
                    sides.iter().for_each(|&(index, _)| self.drafts[index] = Draft::Refused);
                    self.refuse(holder, refusal);
                }
            }
        }
        Ok(())
    }

    /// Captures the sockets of each family together: their records name each other.
    fn sockets(
        &mut self,
        whose: Whose<'_>,
        place: &OpenPlace,
        apart: &Apart<'_>,
        in_flight: Option<&InFlight>,
    ) -> Result<(), Failure> {
        if !self.drafts.iter().any(|draft| matches!(draft, Draft::Socket)) {
            return Ok(());
        }
        let mut unix = Vec::new();
        let mut inet: BTreeMap<Network, Vec<Socket<'_>>> = BTreeMap::new();
        let mut netlink = Vec::new();
        let mut networks = Networks::of(whose.init, whose.processes)?;
        for (index, Description { seen, .. }) in self.table.descriptions.iter().enumerate() {
            if !matches!(self.drafts[index], Draft::Socket) {
                continue;
            }
            match Socket::open(id(index), seen, &mut networks) {
                Ok(socket) if unix_socket::is_one(&socket) => unix.push(socket),
                Ok(socket) if inet_socket::is_one(&socket) => inet.entry(socket.network).or_default().push(socket),
                Ok(socket) if netlink_socket::is_one(&socket) => netlink.push(socket),
                Ok(_) => {
                    self.drafts[index] = Draft::Refused;
                    self.refuse(seen.holder, refused::by_type(seen));
                }
                // Closed meanwhile, by tasks that run.
                Err(_) if self.kernel.is_none() => self.drafts[index] = Draft::Refused,
                Err(errno) => return Err(Failure::from_error(&errno).within(object(seen.holder))),
            }
        }
        let context = unix_socket::Context {
            pids: whose.processes.iter().map(|&(pid, host)| (host, pid)).collect(),
            init: whose.init,
            root: place.root(),
            roots_apart: whose
                .processes
                .iter()
                .filter_map(|&(pid, _)| Some((pid, apart.of_process(pid)?.1.root())))
                .collect(),
            external: whose.external,
            queues: in_flight.map(|in_flight| &in_flight.queues),
            kernel: self.kernel,
            description: &|address| self.table.at_address(address).map(id),
        };
        let mut usual = socket::capture::Usual::default();
        let captured = unix_socket::capture(&unix, &context, &mut usual)?;
        let unix = unix.iter().zip(captured);
        let mut with_inet = Vec::new();
        for sockets in inet.values() {
            let captured = inet_socket::capture(sockets, sockets[0].host, self.kernel, &mut usual)?;
            with_inet.extend(sockets.iter().zip(captured));
        }
        let captured = netlink_socket::capture(&netlink, context.init, self.kernel.is_some(), &mut usual)?;
        for (socket, captured) in unix.chain(with_inet).chain(netlink.iter().zip(captured)) {
            let index = socket.id.0 as usize;
            match captured {
                Ok((kind, queued)) => {
                    self.drafts[index] = Draft::Done(kind);
                    if let Network::Apart(first) = socket.network {
                        self.networks.insert(index, first);
                    }
                    if !queued.is_empty() {
                        self.out.sockets.insert(socket.id, queued);
                    }
                }
                Err(refusal) => {
                    self.drafts[index] = Draft::Refused;
                    self.refuse(socket.seen.holder, refusal);
                }
            }
        }
        Ok(())
    }

    /// The locks that are held, each once: every descriptor of a description shows those that are the description's.
    fn locks(&mut self) {
        let mut locks = BTreeMap::new();
        for (holder, index, line) in &self.table.locks {
            if matches!(self.drafts[*index], Draft::Refused) {
                continue;
            }
            let name = self.table.descriptions[*index].seen.name();
            let taker = lock::lease_taker(line, &self.table.descriptions[*index].holders);
            match lock::capture(line, id(*index), taker.unwrap_or(holder.owner), &name) {
                Ok(_) if holder.pid == in_flight::IN_FLIGHT => self.refuse(*holder, refused::lock_in_message(&name)),
                Ok(_) if self.drafts[*index].is_opened_late() => self.refuse(*holder, refused::lock_opened_late(&name)),
                Ok(lock) => {
                    let owner = (lock.kind == LockKind::Posix).then_some(lock.process);
                    let Lock { file, kind, exclusive, start, end, .. } = lock;
                    locks.entry((file, kind, owner, start, end, exclusive)).or_insert(lock);
                }
                Err(refusal) => self.refuse(*holder, refusal),
            }
        }
        self.out.locks = locks.into_values().collect();
    }

    /// The records. Descriptions keep the number they were met under, so that a refused one leaves a gap.
    fn finish(&mut self, tables: &[TableOf], place: &OpenPlace) {
        for (index, draft) in std::mem::take(&mut self.drafts).into_iter().enumerate() {
            let Draft::Done(kind) = draft else { continue };
            let seen = &self.table.descriptions[index].seen;
            let position = match &kind {
                FileKind::Pseudo(PseudoFile { at_end: true, .. })
                | FileKind::EndedTask(EndedTask { at_end: true, .. }) => 0,
                FileKind::Regular(_) | FileKind::Unnamed(_) | FileKind::Pseudo(_) | FileKind::EndedTask(_) => {
                    seen.info.position
                }
                FileKind::Directory(directory) if directory.deleted.is_none() => seen.info.position,
                _ => 0,
            };
            let is_stream = self.streams.contains(&index);
            if matches!(kind, FileKind::Regular(_)) && (place.is_log(seen) || is_stream) {
                self.out.stdios.push(Stdio { file: id(index), stream: Stream::Log });
            }
            if matches!(&kind, FileKind::Tty(tty) if self.is_console(tty)) {
                self.out.stdios.push(Stdio { file: id(index), stream: Stream::Console });
            }
            let owner = self.owners.remove(&index);
            if let Some(&number) = self.elsewhere.get(&index) {
                self.out.elsewhere.entry(number).or_default().push(id(index));
            }
            if let Some(&first) = self.networks.get(&index) {
                self.out.networks.entry(first).or_default().push(id(index));
            }
            let flags = if is_stream { streams::flags(seen) } else { flags(seen) };
            let position = if is_stream { 0 } else { position };
            self.out.files.insert(id(index), File { flags, position, owner, kind });
        }
        self.out.fds = tables.iter().map(|table| (table.owner, Vec::new())).collect();
        for &(holder, cloexec, index) in &self.table.entries {
            if self.out.files.contains_key(&id(index))
                && let Some(fds) = self.out.fds.get_mut(&holder.owner)
            {
                fds.push(Fd { fd: holder.fd.unsigned_abs(), file: id(index), cloexec });
            }
        }
    }

    fn is_console(&self, tty: &Tty) -> bool {
        !tty.hung_up && self.out.ttys.get(&tty.number).is_some_and(|pty| pty.console.is_some())
    }

    pub(super) fn refuse(&mut self, holder: Holder, refusal: Refusal) {
        self.findings.block(object(holder), refusal.reason, refusal.remedy);
    }
}

fn draft(
    seen: &Seen,
    whose: Whose<'_>,
    place: &OpenPlace,
    kernel: Option<&Kernel<'_>>,
    met: &mut Met,
) -> Result<Draft, Refusal> {
    if let Some(name) = seen.link.strip_prefix(b"anon_inode:") {
        let name = String::from_utf8_lossy(name);
        return match name.trim_start_matches('[').trim_end_matches(']') {
            "eventfd" => eventfd::capture(seen).map(|record| Draft::Done(FileKind::Eventfd(record))),
            "eventpoll" => epoll::capture(seen).map(Draft::Epoll),
            "timerfd" => timerfd::capture(seen).map(|record| Draft::Done(FileKind::Timerfd(record))),
            "pidfd" => {
                pidfd::capture(seen, whose.processes, whose.init).map(|record| Draft::Done(FileKind::Pidfd(record)))
            }
            "inotify" => {
                inotify::capture(seen, place, whose.init, kernel).map(|record| Draft::Done(FileKind::Inotify(record)))
            }
            "fanotify" => {
                fanotify::capture(seen, place, whose.init, kernel).map(|record| Draft::Done(FileKind::Fanotify(record)))
            }
            "io_uring" => {
                let found = io_uring::capture(seen, &mut met.rings, kernel);
                found.map(|found| found.map_or(Draft::Refused, |ring| Draft::Done(FileKind::IoUring(ring))))
            }
            "signalfd" => signalfd::capture(seen).map(|record| Draft::Done(FileKind::Signalfd(record))),
            other => Err(refused::anonymous(other)),
        };
    }
    if path_only::is_one(seen) {
        return path_only::capture(seen, place).map(|record| Draft::Done(FileKind::PathOnly(record)));
    }
    if let Some(captured) = ended_task::capture(seen, place, whose.init, kernel.is_some()) {
        return captured.map(|record| Draft::Done(FileKind::EndedTask(record)));
    }
    if let Some(file_system) = pseudo_file::file_system(seen.file_system)
        && matches!(seen.file_type(), libc::S_IFREG | libc::S_IFDIR)
    {
        let captured = pseudo_file::capture(seen, file_system, place, kernel.is_some());
        return captured.map(|record| Draft::Done(FileKind::Pseudo(record)));
    }
    match seen.file_type() {
        libc::S_IFREG if namespace::is_one(seen) => {
            namespace::capture(seen, whose.init, whose.processes).map(|record| Draft::Done(FileKind::Namespace(record)))
        }
        libc::S_IFREG if seen.file_system == refused::MQUEUE => Ok(Draft::Queue),
        libc::S_IFREG if regular_file::is_unnamed(seen) => regular_file::capture_unnamed(seen, place, &mut met.unnamed)
            .map(|record| Draft::Done(FileKind::Unnamed(record))),
        libc::S_IFREG => regular_file::capture(seen, place).map(|record| Draft::Done(FileKind::Regular(record))),
        libc::S_IFDIR => directory::capture(seen, place).map(|record| Draft::Done(FileKind::Directory(record))),
        libc::S_IFCHR if tty::is_tty(seen) => Ok(Draft::Tty),
        libc::S_IFCHR => match device::capture(seen, place) {
            Some(record) => record.map(|record| Draft::Done(FileKind::Device(record))),
            None => Err(refused::by_type(seen)),
        },
        libc::S_IFIFO if pipe::is_unnamed(seen) => Ok(Draft::Pipe { path: None }),
        libc::S_IFIFO if pipe::is_end(seen) => Ok(Draft::Pipe { path: Some(place.path(seen, "FIFO")?) }),
        libc::S_IFSOCK if !seen.is_path() => Ok(Draft::Socket),
        _ => Err(refused::by_type(seen)),
    }
}

/// Flags as open(2) would take them again: a file made without a name and linked since (O_TMPFILE) is opened by its name.
fn flags(seen: &Seen) -> OpenFlags {
    const TMPFILE: u64 = 0o20_000_000;
    const EXCL: u64 = 0o200;
    // What is left of O_EXCL is a pidfd's way to say that it is for a thread.
    let flags = OpenFlags(seen.flags().0 & !EXCL);
    if flags.0 & TMPFILE == 0 { flags } else { OpenFlags(flags.0 & !(TMPFILE | OpenFlags::O_DIRECTORY.0)) }
}

/// Descriptions are numbered in the order in which they were met.
pub(super) fn id(index: usize) -> FileId {
    FileId(u32::try_from(index).unwrap_or(u32::MAX))
}

/// A descriptor as a path in the tree.
pub(super) fn object(holder: Holder) -> String {
    if holder.pid == in_flight::IN_FLIGHT {
        return "files: a descriptor in a message that waits in a Unix socket".to_owned();
    }
    format!("{}: {}", table_file(holder.pid, holder.owner), holder.fd)
}

fn gone(holder: Holder) -> Failure {
    Failure::new(Kind::Stale, format!("{}: its descriptors change although it is frozen", object(holder)))
}

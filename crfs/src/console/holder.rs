//! The process that holds the master of a console.

use super::{
    ARGV0, ATTACH, END, INPUT, OUTPUT, PACKET, PAUSE, PAUSED, SCROLLBACK, SCROLLBACK_SIZE, SIZE, SOCKET, address_in,
    unpack_size,
};
use crate::failure::{Doing, Failure, Kind};
use crate::operation;
use crate::registry::{Container, Registry};
use crfs_sys::{pidfd, tty};
use libc::winsize;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, Backlog, MsgFlags, SockFlag, SockType, bind, listen, recv, send, socket};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, dup2_stdin, dup2_stdout, read, setsid, write};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Read at once.
const PART: usize = 8 << 10;
/// While a client has more than this to read, nothing is read from the terminal: its programs wait, as they would for a slow terminal.
const MOST_BEHIND: usize = 256 << 10;
/// Input that waits for the terminal; beyond it none is taken from clients.
const MOST_INPUT: usize = 64 << 10;
/// Between two looks at what does not announce itself: a terminal without a slave, a thaw.
const PAUSE_MS: u16 = 50;
/// For the exit status to be told, and for clients to read the rest.
const FAREWELL: Duration = Duration::from_secs(2);

/// What main calls first: holds a console and exits if this process was started for that, returns otherwise.
pub fn exit_if_holder() {
    let mut arguments = std::env::args();
    if arguments.next().is_none_or(|name| name != ARGV0) {
        return;
    }
    let (name, first) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let code = match Holder::begin(&name, &first) {
        Ok(mut holder) => {
            holder.run();
            0
        }
        Err(failure) => {
            // Read by who started it.
            let _ = write!(std::io::stdout(), "{failure}");
            1
        }
    };
    std::process::exit(code);
}

struct Holder {
    registry: Registry,
    container: Container,
    first: OwnedFd,
    master: OwnedFd,
    listener: UnixListener,
    log: File,
    freeze: PathBuf,
    shown: VecDeque<u8>,
    input: VecDeque<u8>,
    clients: Vec<Peer>,
}

/// Somebody who is connected.
struct Peer {
    socket: OwnedFd,
    role: Role,
    behind: VecDeque<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Has said nothing yet.
    New,
    /// Sees what is shown, and types.
    Attached,
    /// Captures the container: nothing is read meanwhile.
    Pausing,
    /// Is gone.
    Gone,
}

impl Holder {
    fn begin(name: &str, first: &str) -> Result<Self, Failure> {
        let registry = Registry::from_environment();
        let container = registry.container(name)?;
        let pid = first.parse().doing(|| "its arguments")?;
        let first = pidfd::open(Pid::from_raw(pid), false).doing(|| "watching the first process")?;
        // Not before the descriptor: whoever reads the record of a dead container must not think of this one.
        let freeze = crate::freezer::Cgroup::of(&registry, name)?.path().join("cgroup.freeze");
        let path = container.log_file();
        let log = OpenOptions::new().create(true).append(true).open(&path).doing(|| format!("{}", path.display()))?;
        let scrollback = container.dir().join(SCROLLBACK);
        let shown = fs::read(&scrollback).doing(|| format!("{}: reading", scrollback.display()))?;
        // It is read once; one that stays is replaced by the next.
        let _ = fs::remove_file(&scrollback);
        let master = std::io::stdin().as_fd().try_clone_to_owned().doing(|| "its master")?;
        let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL).doing(|| "its master")?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).doing(|| "its master")?;
        let listener = listen_in(&container)?;
        // A session of its own, and nothing of whoever started it: not the terminal, not a pipe that somebody waits for the end of.
        let leave = || -> nix::Result<()> {
            setsid()?;
            std::env::set_current_dir("/").map_err(|_| Errno::ENOENT)?;
            let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
            dup2_stdin(&null)?;
            write(std::io::stdout(), b"+")?;
            dup2_stdout(&null)
        };
        leave().doing(|| "leaving its parent")?;
        let clients = Vec::new();
        Ok(Holder {
            registry,
            container,
            first,
            master,
            listener,
            log,
            freeze,
            shown: shown.into(),
            input: VecDeque::new(),
            clients,
        })
    }

    /// Until the first process has ended.
    fn run(&mut self) {
        let mut slave_is_open = true;
        loop {
            let behind = self.clients.iter().any(|peer| peer.behind.iter().map(Vec::len).sum::<usize>() > MOST_BEHIND);
            let pausing = self.clients.iter().any(|peer| peer.role == Role::Pausing);
            let input = !self.input.is_empty() && !self.is_frozen();
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLIN, !behind && !pausing);
            wanted.set(PollFlags::POLLOUT, input);
            // One whose slave nobody has open is ready without end.
            let master = slave_is_open && !wanted.is_empty();
            let mut fds = vec![
                PollFd::new(self.first.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            ];
            for peer in &self.clients {
                let mut wanted = PollFlags::empty();
                wanted.set(PollFlags::POLLIN, self.input.len() < MOST_INPUT);
                wanted.set(PollFlags::POLLOUT, !peer.behind.is_empty());
                fds.push(PollFd::new(peer.socket.as_fd(), wanted));
            }
            if master {
                fds.push(PollFd::new(self.master.as_fd(), wanted));
            }
            let idle = master && (input || self.input.is_empty());
            let timeout = if idle { PollTimeout::NONE } else { PollTimeout::from(PAUSE_MS) };
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
            let ready: Vec<bool> = fds.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            drop(fds);
            slave_is_open = true;
            if !behind && !pausing {
                slave_is_open = self.read();
            }
            if input {
                self.type_in();
            }
            let connected = self.clients.len();
            for index in (0..connected).filter(|index| ready.get(2 + index) == Some(&true)) {
                self.hear(index);
            }
            if ready.get(1) == Some(&true) {
                self.accept();
            }
            self.clients.iter_mut().for_each(Peer::send_on);
            self.clients.retain(|peer| peer.role != Role::Gone);
            if ready.first() == Some(&true) {
                return self.end();
            }
        }
    }

    /// Reads what there is, and passes it on. False when nobody has the slave open.
    fn read(&mut self) -> bool {
        let mut part = [0; PART];
        match read(&self.master, &mut part) {
            Ok(length) => {
                self.show(&part[..length]);
                true
            }
            Err(Errno::EIO) => false,
            Err(_) => true,
        }
    }

    fn show(&mut self, bytes: &[u8]) {
        // A full disk must not stop the program: what the log lacks is still shown.
        let _ = self.log.write_all(bytes);
        self.shown.extend(bytes);
        let surplus = self.shown.len().saturating_sub(SCROLLBACK_SIZE);
        self.shown.drain(..surplus);
        for peer in self.clients.iter_mut().filter(|peer| peer.role == Role::Attached) {
            peer.tell(OUTPUT, bytes);
        }
    }

    /// Types what has come, as far as the terminal takes it.
    fn type_in(&mut self) {
        let (first, _) = self.input.as_slices();
        if let Ok(length) = write(&self.master, first) {
            self.input.drain(..length);
        }
    }

    /// What is typed while the container is frozen waits here: in the terminal it would be echoed, and signals would be sent.
    fn is_frozen(&self) -> bool {
        fs::read(&self.freeze).is_ok_and(|text| text.starts_with(b"1"))
    }

    fn accept(&mut self) {
        // One that has gone again already is as good.
        if let Ok((socket, _)) = self.listener.accept() {
            self.clients.push(Peer { socket: socket.into(), role: Role::New, behind: VecDeque::new() });
        }
    }

    fn hear(&mut self, index: usize) {
        let mut packet = vec![0; PACKET];
        let length = match recv(self.clients[index].socket.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN | Errno::EINTR) => return,
            other => other.unwrap_or(0),
        };
        let (letter, rest) = match packet[..length].split_first() {
            None => return self.clients[index].role = Role::Gone,
            Some((&letter, rest)) => (letter, rest),
        };
        match letter {
            ATTACH => {
                let shown: Vec<u8> = self.shown.iter().copied().collect();
                self.clients[index].role = Role::Attached;
                if !shown.is_empty() {
                    self.clients[index].tell(OUTPUT, &shown);
                }
                self.redraw(unpack_size(rest).ok());
            }
            INPUT => self.input.extend(rest),
            SIZE => {
                if let Ok(size) = unpack_size(rest) {
                    // One that is refused leaves the size as it is.
                    let _ = tty::set_window_size(self.master.as_fd(), &size);
                }
            }
            PAUSE => {
                while self.drain() {}
                let number = tty::number(self.master.as_fd()).unwrap_or(u32::MAX);
                let answer: Vec<u8> = number.to_ne_bytes().into_iter().chain(self.shown.iter().copied()).collect();
                self.clients[index].role = Role::Pausing;
                self.clients[index].tell(PAUSED, &answer);
            }
            _ => self.clients[index].role = Role::Gone,
        }
    }

    /// Gives the terminal a size, so that whoever draws on the whole of it does so again: also where it has that size already.
    fn redraw(&self, size: Option<winsize>) {
        let Ok(now) = tty::window_size(self.master.as_fd()) else { return };
        let size = size.unwrap_or(now);
        let same = (size.ws_row, size.ws_col) == (now.ws_row, now.ws_col);
        if same && size.ws_row > 1 {
            let _ = tty::set_window_size(self.master.as_fd(), &winsize { ws_row: size.ws_row - 1, ..size });
        }
        let _ = tty::set_window_size(self.master.as_fd(), &size);
    }

    /// Reads once; false when there was nothing.
    fn drain(&mut self) -> bool {
        let mut part = [0; PART];
        match read(&self.master, &mut part) {
            Ok(length @ 1..) => {
                self.show(&part[..length]);
                true
            }
            _ => false,
        }
    }

    /// Shows the rest, and tells everybody how the first process ended.
    fn end(&mut self) {
        while self.drain() {}
        let end = Instant::now() + FAREWELL;
        let mut status = self.status();
        while status.is_none() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            status = self.status();
        }
        let status = status.map(i32::to_ne_bytes);
        for peer in self.clients.iter_mut().filter(|peer| peer.role == Role::Attached) {
            peer.tell(END, status.as_ref().map_or(&[], |bytes| bytes.as_slice()));
        }
        while self.clients.iter().any(|peer| !peer.behind.is_empty()) && Instant::now() < end {
            self.clients.iter_mut().for_each(Peer::send_on);
            self.clients.retain(|peer| peer.role != Role::Gone);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Known once it was reaped, or while it is a zombie.
    fn status(&self) -> Option<i32> {
        let reaped = pidfd::info(self.first.as_fd()).ok().and_then(|info| info.exit_status);
        let zombie =
            || operation::state(&self.registry, self.container.name()).ok().and_then(|(_, record)| record.exit_status);
        reaped.or_else(zombie)
    }
}

impl Peer {
    /// Queues a packet, in parts that the socket takes.
    fn tell(&mut self, letter: u8, bytes: &[u8]) {
        let parts = if letter == OUTPUT { bytes.chunks(PART).collect() } else { vec![bytes] };
        self.behind.extend(parts.into_iter().map(|part| [&[letter], part].concat()));
    }

    /// Sends what the socket takes.
    fn send_on(&mut self) {
        while let Some(packet) = self.behind.front() {
            match send(self.socket.as_raw_fd(), packet, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL) {
                Ok(_) => drop(self.behind.pop_front()),
                Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => return,
                Err(_) => {
                    self.role = Role::Gone;
                    self.behind.clear();
                    return;
                }
            }
        }
    }
}

/// Bound beside and renamed into place: the holder of a container of this name that has just ended may still be there.
fn listen_in(container: &Container) -> Result<UnixListener, Failure> {
    let doing = || "making its socket";
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(container.dir(), flags, Mode::empty()).doing(doing)?;
    let new = format!("{SOCKET}.new");
    let path = container.dir().join(&new);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).doing(doing),
        _ => {}
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).doing(doing)?;
    bind(listener.as_raw_fd(), &address_in(&directory, &new).doing(doing)?).doing(doing)?;
    let backlog = Backlog::new(16).map_err(|_| Failure::new(Kind::System, "no backlog"))?;
    listen(&listener, backlog).doing(doing)?;
    fs::rename(&path, container.dir().join(SOCKET)).doing(doing)?;
    // Packets are accepted as streams are.
    Ok(listener.into())
}

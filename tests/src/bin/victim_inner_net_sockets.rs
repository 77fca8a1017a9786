//! Sockets of network namespaces apart: a child has left for one and has there what its parent has outside, under the same names, ports and
//! numbers; a pair and a connection by a path lead from one to the other; its own child has one where `lo` is down.

use anyhow::{Context, Result, ensure};
use crfs_sys::anonymous::{Kind, Region};
use crfs_sys::socket_options::get;
use crfs_sys::sockets::{bring_loopback_up, loopback_is_up, take_loopback_down};
use crfs_tests::victim::{self, Stage, child, expect_success};
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, getsockopt, socket, sockopt,
};
use nix::unistd::{Pid, getpid};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(20);
/// SO_NETNS_COOKIE (include/uapi/asm-generic/socket.h)
const COOKIE: i32 = 71;
/// The port of TCP and UDP, and the port id of netlink sockets, of each network.
const PORT: u16 = 4711;
const PORT_ID: u32 = 4712;
/// Words of the shared memory: rounds of the grandchild, and whether it is to end.
const ROUNDS: usize = 0;
const END: usize = 1;

fn network_of(socket: BorrowedFd<'_>) -> Result<u64> {
    let mut value = [0; 8];
    get(socket, libc::SOL_SOCKET, COOKIE, &mut value)?;
    Ok(u64::from_ne_bytes(value))
}

/// That of the caller, which a restore makes anew.
fn own_network() -> Result<u64> {
    network_of(UnixDatagram::unbound()?.as_fd())
}

fn abstract_name(name: &str) -> Result<UnixAddress> {
    Ok(UnixAddress::from_abstract_name(name)?)
}

/// What each of two networks has, under the same names.
struct Set {
    /// What its messages say.
    word: &'static str,
    /// Where one connection always waits, with the word in it.
    listener: UnixListener,
    waiting: UnixStream,
    accepted: (UnixStream, UnixStream),
    pair: (UnixStream, UnixStream),
    sender: UnixDatagram,
    receiver: UnixDatagram,
    tcp: (TcpListener, TcpStream, TcpStream),
    udp: UdpSocket,
    netlink: OwnedFd,
}

impl Set {
    fn new(word: &'static str) -> Result<Self> {
        let listener = UnixListener::bind_addr(&abstract_name("crfs-inner-stream")?).context("binding")?;
        let client = UnixStream::connect_addr(&abstract_name("crfs-inner-stream")?)?;
        let accepted = (client, listener.accept()?.0);
        let sender = UnixDatagram::bind_addr(&abstract_name("crfs-inner-sender")?)?;
        let receiver = UnixDatagram::bind_addr(&abstract_name("crfs-inner-datagram")?)?;
        let at = SocketAddr::from(([127, 0, 0, 1], PORT));
        let tcp = TcpListener::bind(at)?;
        let near = TcpStream::connect(at)?;
        let far = tcp.accept()?.0;
        far.set_read_timeout(Some(DEADLINE))?;
        let netlink =
            socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(PORT_ID, 0))?;
        let set = Set {
            word,
            waiting: waiting(word)?,
            listener,
            accepted,
            pair: UnixStream::pair()?,
            sender,
            receiver,
            tcp: (tcp, near, far),
            udp: UdpSocket::bind(at)?,
            netlink,
        };
        set.send()?;
        Ok(set)
    }

    /// What waits in it all the time.
    fn send(&self) -> Result<()> {
        self.sender.send_to_addr(self.word.as_bytes(), &abstract_name("crfs-inner-datagram")?)?;
        (&self.pair.0).write_all(self.word.as_bytes())?;
        (&self.tcp.1).write_all(self.word.as_bytes())?;
        self.udp.send_to(self.word.as_bytes(), self.udp.local_addr()?)?;
        Ok(())
    }

    fn says(&self, what: &str, read: impl FnOnce(&mut [u8]) -> std::io::Result<usize>) -> Result<()> {
        let mut bytes = vec![0; self.word.len()];
        let length = read(&mut bytes).with_context(|| format!("{}: {what}", self.word))?;
        ensure!(bytes[..length] == *self.word.as_bytes(), "{}: {what}: {bytes:?}", self.word);
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        let sockets = [
            self.listener.as_fd(),
            self.waiting.as_fd(),
            self.accepted.0.as_fd(),
            self.accepted.1.as_fd(),
            self.pair.0.as_fd(),
            self.pair.1.as_fd(),
            self.sender.as_fd(),
            self.receiver.as_fd(),
            self.tcp.0.as_fd(),
            self.tcp.1.as_fd(),
            self.tcp.2.as_fd(),
            self.udp.as_fd(),
            self.netlink.as_fd(),
        ];
        let own = own_network()?;
        for (number, socket) in sockets.into_iter().enumerate() {
            ensure!(network_of(socket)? == own, "{}: socket {number} is in another network", self.word);
        }
        let credentials = getsockopt(&self.pair.1, sockopt::PeerCredentials)?;
        ensure!(Pid::from_raw(credentials.pid()) == getpid(), "{}: the pair is of {}", self.word, credentials.pid());
        let (mut late, _) = self.listener.accept()?;
        self.says("a connection that waited", |bytes| late.read_exact(bytes).map(|()| bytes.len()))?;
        self.waiting = waiting(self.word)?;
        (&self.accepted.0).write_all(self.word.as_bytes())?;
        self.says("a connection", |bytes| (&self.accepted.1).read_exact(bytes).map(|()| bytes.len()))?;
        self.says("a pair", |bytes| (&self.pair.1).read_exact(bytes).map(|()| bytes.len()))?;
        self.says("a TCP connection", |bytes| (&self.tcp.2).read_exact(bytes).map(|()| bytes.len()))?;
        self.says("a datagram over UDP", |bytes| self.udp.recv(bytes))?;
        let mut from = None;
        self.says("a datagram", |bytes| {
            let (length, sender) = self.receiver.recv_from(bytes)?;
            from = Some(sender);
            Ok(length)
        })?;
        let from = from.as_ref().and_then(UnixAddress::as_abstract_name);
        ensure!(from == Some(b"crfs-inner-sender"), "{}: the datagram came from {from:?}", self.word);
        let port = getsockname::<NetlinkAddr>(self.netlink.as_raw_fd())?.pid();
        ensure!(port == PORT_ID, "{}: the netlink socket has the port id {port}", self.word);
        self.send()
    }
}

fn waiting(word: &str) -> Result<UnixStream> {
    let mut client = UnixStream::connect_addr(&abstract_name("crfs-inner-stream")?)?;
    client.write_all(word.as_bytes())?;
    Ok(client)
}

/// The child: a round for each byte that comes, until the end of them.
fn inside(shared: &Region, mut far: UnixStream, path: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
    bring_loopback_up()?;
    let mut set = Set::new("inside")?;
    let mut crossing = UnixStream::connect(path)?;
    let grandchild = child(|| below(shared))?;
    let mut byte = [0];
    while far.read(&mut byte)? > 0 {
        set.check()?;
        ensure!(network_of(far.as_fd())? != own_network()?, "the pair came in from outside");
        crossing.write_all(&byte)?;
        far.write_all(&byte)?;
    }
    shared.set(END, 1);
    expect_success(grandchild)
}

/// The grandchild: a connection that stands in a network where nothing moves.
fn below(shared: &Region) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("unshare")?;
    bring_loopback_up()?;
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], PORT)))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let mut far = listener.accept()?.0;
    far.set_read_timeout(Some(DEADLINE))?;
    near.write_all(b"still")?;
    let mut bytes = [0; 5];
    victim::wait_until("what was sent", || far.peek(&mut bytes).is_ok_and(|length| length == 5))?;
    take_loopback_down()?;
    while shared.get(END) == 0 {
        ensure!(!loopback_is_up()?, "lo was taken down, and is up");
        let (length, own) = (far.peek(&mut bytes)?, own_network()?);
        ensure!(&bytes[..length] == b"still", "{bytes:?} waits there");
        ensure!(network_of(far.as_fd())? == own, "the connection is in another network");
        shared.word(ROUNDS).fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
    }
    bring_loopback_up()?;
    near.write_all(b" here")?;
    let mut bytes = [0; 10];
    far.read_exact(&mut bytes).context("reading what is sent with lo up again")?;
    ensure!(&bytes == b"still here", "{bytes:?} came");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let shared = Region::new(4096, Kind { shared: true, noreserve: false })?;
    bring_loopback_up()?;
    let path = victim::suffixed(stage.path(), "socket");
    let listener = UnixListener::bind(&path)?;
    let (mut near, far) = UnixStream::pair()?;
    near.set_read_timeout(Some(DEADLINE))?;
    let child = {
        let own = near.as_raw_fd();
        child(|| {
            // Or it would never come to the end.
            nix::unistd::close(own)?;
            inside(&shared, far, &path)
        })?
    };
    let (mut crossing, _) = listener.accept()?;
    crossing.set_read_timeout(Some(DEADLINE))?;
    let mut set = Set::new("outside")?;
    loop {
        set.check()?;
        let then = shared.get(ROUNDS);
        let sent = [stage.round().to_le_bytes()[0]];
        near.write_all(&sent)?;
        let mut came = [[0]; 2];
        near.read_exact(&mut came[0]).context("the pair that leads inside")?;
        crossing.read_exact(&mut came[1]).context("the connection from inside")?;
        ensure!(came == [sent; 2], "{came:?} came for {sent:?}");
        ensure!(network_of(near.as_fd())? == own_network()?, "the pair is not of this network");
        ensure!(network_of(crossing.as_fd())? != own_network()?, "what was accepted is of where its client is");
        victim::wait_until("the grandchild to look again", || shared.get(ROUNDS) > then)?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    drop(near);
    expect_success(child)
}

fn main() -> ExitCode {
    victim::main(run)
}

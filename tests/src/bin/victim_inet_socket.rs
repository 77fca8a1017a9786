//! TCP and UDP within the container: a listening socket, connections with data queued both ways and more than fits the receiver, one
//! that is shut down one way, one whose client is gone, datagrams from several senders, all watched by epoll.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

/// Bytes that wait in a connection all the time.
const QUEUED: usize = 9000;

/// A connection with both its ends.
struct Connection {
    client: TcpStream,
    server: TcpStream,
}

impl Connection {
    fn open(listener: &TcpListener, to: SocketAddr) -> Result<Self> {
        let client = TcpStream::connect(to)?;
        let (server, from) = listener.accept()?;
        ensure!(from.port() == client.local_addr()?.port(), "somebody else connected");
        Ok(Connection { client, server })
    }
}

struct Sockets {
    listener: TcpListener,
    dual: TcpListener,
    busy: Connection,
    sent: u8,
    received: u8,
    /// So much was written to it that the receiver's window is closed.
    full: Connection,
    flood: usize,
    half: Connection,
    /// Its client is gone.
    left: TcpStream,
    mapped: Connection,
    /// Nobody has accepted it.
    waiting: TcpStream,
    ready: Epoll,
    udp: [UdpSocket; 2],
}

fn set_up() -> Result<Sockets> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let dual = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0))?;
    let here = listener.local_addr()?;
    let busy = Connection::open(&listener, here)?;
    busy.client.set_nodelay(true)?;
    busy.server.set_write_timeout(Some(Duration::from_millis(7_000)))?;
    let half = Connection::open(&listener, here)?;
    (&half.client).write_all(b"the end")?;
    half.client.shutdown(Shutdown::Write)?;
    let left = Connection::open(&listener, here)?;
    (&left.client).write_all(b"last words")?;
    let full = Connection::open(&listener, here)?;
    setsockopt(&full.server, sockopt::RcvBuf, &20_000)?;
    setsockopt(&full.client, sockopt::SndBuf, &100_000)?;
    let flood = flood(&full.client)?;
    let mapped = Connection::open(&dual, SocketAddr::new("127.0.0.1".parse()?, dual.local_addr()?.port()))?;
    let waiting = TcpStream::connect((Ipv6Addr::LOCALHOST, dual.local_addr()?.port()))?;
    let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    ready.add(&busy.server, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 7))?;
    ready.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 8))?;
    let udp = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
    udp[0].connect(udp[1].local_addr()?)?;
    let left = left.server;
    let mut sockets =
        Sockets { listener, dual, busy, sent: 0, received: 0, full, flood, half, left, mapped, waiting, ready, udp };
    sockets.put(QUEUED)?;
    sockets.send_datagrams()?;
    Ok(sockets)
}

/// Writes until nothing more is taken.
fn flood(mut client: &TcpStream) -> Result<usize> {
    client.set_nonblocking(true)?;
    let mut sent = 0;
    loop {
        let bytes: Vec<u8> = (sent..sent + 4096).map(byte).collect();
        match client.write(&bytes) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.into()),
        }
    }
    client.set_nonblocking(false)?;
    Ok(sent)
}

/// The byte at a position of the flood: of a period that no page size divides.
fn byte(position: usize) -> u8 {
    u8::try_from(position % 251).unwrap_or(0)
}

impl Sockets {
    fn put(&mut self, count: usize) -> Result<()> {
        for _ in 0..count / 100 {
            let bytes: Vec<u8> = (0..100).map(|at| self.sent.wrapping_add(at)).collect();
            self.sent = self.sent.wrapping_add(100);
            self.busy.client.write_all(&bytes)?;
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<()> {
        let mut bytes = vec![0; count];
        self.busy.server.read_exact(&mut bytes)?;
        for byte in bytes {
            ensure!(byte == self.received, "byte {byte} came where {} belongs", self.received);
            self.received = self.received.wrapping_add(1);
        }
        Ok(())
    }

    fn send_datagrams(&self) -> Result<()> {
        for text in ["one", "", "three"] {
            self.udp[0].send(text.as_bytes())?;
        }
        Ok(())
    }

    fn take_datagrams(&self) -> Result<()> {
        for text in ["one", "", "three"] {
            let mut bytes = [0; 16];
            let (length, from) = self.udp[1].recv_from(&mut bytes)?;
            ensure!(&bytes[..length] == text.as_bytes(), "{:?} came for {text:?}", &bytes[..length]);
            ensure!(from == self.udp[0].local_addr()?, "it came from {from}");
        }
        Ok(())
    }

    fn check(&mut self) -> Result<()> {
        ensure!(self.busy.client.nodelay()?, "TCP_NODELAY is gone");
        ensure!(self.busy.server.write_timeout()? == Some(Duration::from_millis(7_000)), "SO_SNDTIMEO changed");
        let (client, server) = (self.busy.client.local_addr()?, self.busy.server.peer_addr()?);
        ensure!(client == server, "the server's peer is {server}, the client {client}");
        for Connection { client, server } in [&mut self.busy, &mut self.mapped] {
            server.write_all(b"answer")?;
            let mut word = [0; 6];
            client.read_exact(&mut word)?;
            ensure!(&word == b"answer", "the connection lost something");
        }
        let mut events = [EpollEvent::empty(); 4];
        let count = self.ready.wait(&mut events, EpollTimeout::ZERO)?;
        ensure!(events[..count].iter().any(|event| event.data() == 7), "epoll does not tell of the new data");
        let mut newcomer = Connection::open(&self.listener, self.listener.local_addr()?).context("a new connection")?;
        newcomer.client.write_all(b"hello")?;
        drop(newcomer.client);
        let mut text = String::new();
        newcomer.server.read_to_string(&mut text)?;
        ensure!(text == "hello", "a new connection brought {text:?}");
        Ok(())
    }

    fn last(mut self) -> Result<()> {
        self.take(QUEUED)?;
        let mut text = String::new();
        self.half.server.read_to_string(&mut text)?;
        ensure!(text == "the end", "half a connection holds {text:?}");
        self.half.server.write_all(b"!")?;
        self.half.client.read_exact(&mut [0; 1])?;
        text.clear();
        self.left.read_to_string(&mut text)?;
        ensure!(text == "last words", "the client that is gone has left {text:?}");
        self.full.client.shutdown(Shutdown::Write)?;
        let mut bytes = Vec::new();
        self.full.server.read_to_end(&mut bytes)?;
        ensure!(bytes.len() == self.flood, "{} bytes came of {}", bytes.len(), self.flood);
        ensure!(bytes.iter().enumerate().all(|(at, &found)| found == byte(at)), "the flood is mixed up");
        let (mut served, _) = self.dual.accept()?;
        served.write_all(b"late")?;
        let mut word = [0; 4];
        self.waiting.read_exact(&mut word)?;
        ensure!(&word == b"late", "what waited to be accepted got {word:?}");
        Ok(())
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let mut sockets = set_up()?;
    loop {
        sockets.take(300)?;
        sockets.put(300)?;
        sockets.take_datagrams()?;
        sockets.send_datagrams()?;
        sockets.check()?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    sockets.last()
}

fn main() -> ExitCode {
    victim::main(run)
}

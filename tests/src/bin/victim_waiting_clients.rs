//! Clients that connected and were not accepted yet: with data sent, with descriptors, shut down, closed. Each finds its data at the end
//! that is accepted, once, in order, and from whom it came.

use anyhow::{Context, Result, ensure};
use crfs_sys::socket_options::accept;
use crfs_sys::socket_queue::{Message, peek, send};
use crfs_tests::victim::{self, Stage};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, recv,
    setsockopt, socket, sockopt,
};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::Duration;

/// More than the kernel keeps of one message in one piece of memory.
const MUCH: usize = 30_000;
/// How long data that was sent may be on its way, also over a freeze.
const DEADLINE: Duration = Duration::from_secs(12);
const PACKETS: [usize; 3] = [3, MUCH, 1];

fn pattern(length: usize, first: u8) -> Vec<u8> {
    (first..=250).cycle().take(length).collect()
}

/// A listening stream socket, and those who wait there, in their order. One more was closed after the first.
struct Streams {
    listener: UnixListener,
    much: UnixStream,
    shut: UnixStream,
    silent: UnixStream,
    passing: UnixStream,
    /// One end is what `passing` has sent.
    pair: (UnixStream, UnixStream),
}

impl Streams {
    fn new(stage: &Stage, old: Option<UnixListener>) -> Result<Self> {
        let path = victim::suffixed(stage.path(), "stream");
        let listener = match old {
            Some(old) => old,
            None => {
                let listener = UnixListener::bind(&path)?;
                told_who_sends(&listener)?;
                listener
            }
        };
        let client = || UnixStream::connect(&path).context("connecting");
        let mut much = client()?;
        much.write_all(b"first")?;
        much.write_all(&pattern(MUCH, 7))?;
        client()?.write_all(b"last words")?;
        let mut shut = client()?;
        shut.write_all(b"the end")?;
        shut.shutdown(Shutdown::Write)?;
        let silent = client()?;
        let pair = UnixStream::pair()?;
        let mut passing = client()?;
        send(passing.as_fd(), b"take", &[pair.0.as_fd()], None, &[])?;
        passing.write_all(b" it")?;
        Ok(Streams { listener, much, shut, silent, passing, pair })
    }

    fn accept(&self) -> Result<UnixStream> {
        let (served, _) = self.listener.accept()?;
        let peer = getsockopt(&served, sockopt::PeerCredentials)?;
        ensure!(peer.pid() == own_pid(), "the peer is {}, and {} connected", peer.pid(), own_pid());
        served.set_nonblocking(true)?;
        Ok(served)
    }

    /// Accepts all of them.
    fn check(mut self) -> Result<UnixListener> {
        let mut served = self.accept()?;
        comes(&mut served, b"first")?;
        comes(&mut served, &pattern(MUCH, 7))?;
        nothing(&mut served)?;
        answers(&mut served, &mut self.much)?;
        let mut served = self.accept()?;
        comes(&mut served, b"last words")?;
        ensure!(served.read(&mut [0])? == 0, "a closed client's data has no end");
        let mut served = self.accept()?;
        comes(&mut served, b"the end")?;
        ensure!(served.read(&mut [0])? == 0, "data that was ended has no end");
        answers(&mut served, &mut self.shut)?;
        let mut served = self.accept()?;
        nothing(&mut served)?;
        answers(&mut served, &mut self.silent)?;
        let mut served = self.accept()?;
        let mut message = peek(served.as_fd(), 7)?;
        ensure!(&message.data[..4] == b"take", "{:?} came", message.data);
        is_own(&message)?;
        recv(served.as_raw_fd(), &mut [0; 4], MsgFlags::MSG_DONTWAIT)?;
        comes(&mut served, b" it")?;
        answers(&mut served, &mut self.passing)?;
        let passed = message.files.pop().context("no descriptor came")?;
        UnixStream::from(passed).write_all(b"!")?;
        comes(&mut self.pair.1, b"!")?;
        self.listener.set_nonblocking(true)?;
        let more = self.listener.accept();
        self.listener.set_nonblocking(false)?;
        ensure!(more.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "one more waits");
        Ok(self.listener)
    }
}

/// A listening socket of packets, with a client that has sent some.
struct Packets {
    listener: OwnedFd,
    client: OwnedFd,
}

impl Packets {
    fn new(stage: &Stage, old: Option<OwnedFd>) -> Result<Self> {
        let path = victim::suffixed(stage.path(), "packets");
        let address = UnixAddr::new(&path)?;
        let fresh = || socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None);
        let listener = match old {
            Some(old) => old,
            None => {
                let listener = fresh()?;
                told_who_sends(&listener)?;
                bind(listener.as_raw_fd(), &address)?;
                listen(&listener, Backlog::new(4)?)?;
                listener
            }
        };
        let client = fresh()?;
        connect(client.as_raw_fd(), &address)?;
        for (number, length) in (0..).zip(PACKETS) {
            send(client.as_fd(), &pattern(length, number), &[], None, &[])?;
        }
        Ok(Packets { listener, client })
    }

    fn check(self) -> Result<OwnedFd> {
        let served = accept(self.listener.as_fd())?;
        for (number, length) in (0..).zip(PACKETS) {
            let message = peek(served.as_fd(), 2 * MUCH)?;
            ensure!(message.data == pattern(length, number), "packet {number} has {} bytes", message.data.len());
            is_own(&message)?;
            recv(served.as_raw_fd(), &mut vec![0; MUCH], MsgFlags::MSG_DONTWAIT)?;
        }
        ensure!(peek(served.as_fd(), 1).is_err(), "more packets came");
        drop(self.client);
        Ok(self.listener)
    }
}

/// A listening TCP socket, and those who wait there; one more was closed, and is known by its address.
struct Tcp {
    listener: TcpListener,
    much: TcpStream,
    shut: TcpStream,
    silent: TcpStream,
    closed: SocketAddr,
}

impl Tcp {
    fn new(old: Option<TcpListener>) -> Result<Self> {
        let listener = match old {
            Some(old) => old,
            None => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                // Each that is accepted takes them over.
                setsockopt(&listener, sockopt::TcpNoDelay, &true)?;
                setsockopt(&listener, sockopt::TcpKeepIdle, &77)?;
                listener
            }
        };
        let here = listener.local_addr()?;
        let client = || TcpStream::connect(here).context("connecting");
        let mut much = client()?;
        much.write_all(b"first")?;
        much.write_all(&pattern(MUCH, 9))?;
        let mut gone = client()?;
        gone.write_all(b"last words")?;
        let closed = gone.local_addr()?;
        drop(gone);
        let mut shut = client()?;
        shut.write_all(b"the end")?;
        shut.shutdown(Shutdown::Write)?;
        Ok(Tcp { much, shut, silent: client()?, closed, listener })
    }

    /// Accepts all of them, whose order is that of their arrival, which nobody has seen.
    fn check(self) -> Result<TcpListener> {
        let mut came = HashMap::new();
        for _ in 0..4 {
            let (served, from) = self.listener.accept()?;
            let options = (getsockopt(&served, sockopt::TcpNoDelay)?, getsockopt(&served, sockopt::TcpKeepIdle)?);
            ensure!(options == (true, 77), "{from} was accepted with the options {options:?}");
            served.set_read_timeout(Some(DEADLINE))?;
            came.insert(from, served);
        }
        let mut of = |client| came.remove(&client).with_context(|| format!("{client} does not wait"));
        let mut served = of(self.closed)?;
        comes(&mut served, b"last words")?;
        ensure!(served.read(&mut [0])? == 0, "a closed client's data has no end");
        let mut served = of(self.shut.local_addr()?)?;
        comes(&mut served, b"the end")?;
        ensure!(served.read(&mut [0])? == 0, "data that was ended has no end");
        answers(&mut served, &mut &self.shut)?;
        let mut served = of(self.much.local_addr()?)?;
        comes(&mut served, b"first")?;
        comes(&mut served, &pattern(MUCH, 9))?;
        is_silent(&mut served)?;
        answers(&mut served, &mut &self.much)?;
        let mut served = of(self.silent.local_addr()?)?;
        is_silent(&mut served)?;
        answers(&mut served, &mut &self.silent)?;
        Ok(self.listener)
    }
}

fn is_silent(served: &mut TcpStream) -> Result<()> {
    served.set_nonblocking(true)?;
    let silent = nothing(served);
    served.set_nonblocking(false)?;
    silent
}

/// Has what is accepted ask for credentials from the first instant on: who waits for them is told them after a freeze, nobody else.
fn told_who_sends(listener: &impl AsFd) -> Result<()> {
    Ok(setsockopt(listener, sockopt::PassCred, &true)?)
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// Whether it is said to come from this process.
fn is_own(message: &Message) -> Result<()> {
    let sender = message.credentials.context("no credentials came")?;
    ensure!(sender.pid == own_pid(), "process {} sent it, not {}", sender.pid, own_pid());
    Ok(())
}

fn comes(stream: &mut impl Read, expected: &[u8]) -> Result<()> {
    let mut bytes = vec![0; expected.len()];
    stream.read_exact(&mut bytes).with_context(|| format!("reading {} bytes", expected.len()))?;
    ensure!(bytes == expected, "{} other bytes came", expected.len());
    Ok(())
}

fn nothing(stream: &mut impl Read) -> Result<()> {
    let read = stream.read(&mut [0]);
    ensure!(read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{read:?} came after the end");
    Ok(())
}

fn answers(served: &mut impl Write, client: &mut impl Read) -> Result<()> {
    served.write_all(b"answer")?;
    comes(client, b"answer")
}

fn run(stage: &mut Stage) -> Result<()> {
    let (mut streams, mut packets, mut tcp) = (Streams::new(stage, None)?, Packets::new(stage, None)?, Tcp::new(None)?);
    while stage.end_round_and_rest()? {
        streams = Streams::new(stage, Some(streams.check()?))?;
        packets = Packets::new(stage, Some(packets.check()?))?;
        // Each closed connection leaves something behind for a minute (TIME_WAIT): not too many of them.
        if stage.round().is_multiple_of(8) {
            tcp = Tcp::new(Some(tcp.check()?))?;
        }
    }
    streams.check()?;
    packets.check()?;
    tcp.check().map(drop)
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Unix sockets of every kind: pairs and connections with data queued, a listener with a name, datagrams from a named sender, descriptors under
//! way, options. Nothing of what waits may be lost, doubled or joined.

use anyhow::{Context, Result, ensure};
use crfs_sys::socket_queue::{Credentials, Message, peek, send};
use crfs_tests::victim::{self, Stage};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixCredentials, getsockopt, recv, setsockopt, socketpair, sockopt,
};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Bytes that wait in a stream all the time.
const QUEUED: usize = 5000;

struct Sockets {
    near: UnixStream,
    far: UnixStream,
    sent: u8,
    received: u8,
    path: PathBuf,
    listener: UnixListener,
    client: UnixStream,
    accepted: UnixStream,
    sender: UnixDatagram,
    receiver: UnixDatagram,
    packets: (OwnedFd, OwnedFd),
    half: (UnixStream, UnixStream),
    orphan: UnixStream,
}

fn set_up(stage: &Stage) -> Result<Sockets> {
    let (near, far) = UnixStream::pair()?;
    far.set_read_timeout(Some(Duration::from_millis(12_000)))?;
    setsockopt(&far, sockopt::RcvBuf, &50_000)?;
    let path = victim::suffixed(stage.path(), "socket");
    let listener = UnixListener::bind(&path).context("binding the listener")?;
    let client = UnixStream::connect(&path)?;
    let (accepted, _) = listener.accept()?;
    let names = ["sender", "receiver"].map(|name| victim::suffixed(stage.path(), name));
    let [sender, receiver] = names.clone().map(UnixDatagram::bind);
    let (sender, receiver) = (sender?, receiver?);
    sender.connect(&names[1])?;
    let packets = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    setsockopt(&packets.1, sockopt::PassCred, &true)?;
    let half = UnixStream::pair()?;
    (&half.0).write_all(b"the end")?;
    half.0.shutdown(std::net::Shutdown::Write)?;
    let (orphan, mut gone) = UnixStream::pair()?;
    gone.write_all(b"last words")?;
    drop(gone);
    let mut sockets = Sockets {
        near,
        far,
        sent: 0,
        received: 0,
        path,
        listener,
        client,
        accepted,
        sender,
        receiver,
        packets,
        half,
        orphan,
    };
    sockets.put(QUEUED)?;
    sockets.send_datagrams()?;
    sockets.send_packets()?;
    Ok(sockets)
}

impl Sockets {
    fn put(&mut self, count: usize) -> Result<()> {
        for _ in 0..count / 100 {
            let bytes: Vec<u8> = (0..100).map(|at| self.sent.wrapping_add(at)).collect();
            self.sent = self.sent.wrapping_add(100);
            self.near.write_all(&bytes)?;
        }
        Ok(())
    }

    fn take(&mut self, count: usize) -> Result<()> {
        let mut bytes = vec![0; count];
        self.far.read_exact(&mut bytes)?;
        for byte in bytes {
            ensure!(byte == self.received, "byte {byte} came where {} belongs", self.received);
            self.received = self.received.wrapping_add(1);
        }
        Ok(())
    }

    fn send_datagrams(&self) -> Result<()> {
        for text in ["one", "", "three"] {
            self.sender.send(text.as_bytes())?;
        }
        Ok(())
    }

    fn take_datagrams(&self) -> Result<()> {
        for text in ["one", "", "three"] {
            let mut bytes = [0; 16];
            let (length, from) = self.receiver.recv_from(&mut bytes)?;
            ensure!(&bytes[..length] == text.as_bytes(), "{:?} came for {text:?}", &bytes[..length]);
            let expected = self.path.with_extension("sender");
            ensure!(from.as_pathname() == Some(expected.as_path()), "it came from {from:?}");
        }
        Ok(())
    }

    /// A pipe's reading end under way, with the only writing end gone and a word in it; and a message behind it.
    fn send_packets(&self) -> Result<()> {
        let (out, into) = nix::unistd::pipe()?;
        File::from(into).write_all(b"in flight")?;
        send(self.packets.0.as_fd(), b"carrier", &[out.as_fd()], None, &[])?;
        send(self.packets.0.as_fd(), b"behind", &[], None, &[])?;
        Ok(())
    }

    fn take_packets(&self) -> Result<()> {
        let (file, credentials) = self.packet(b"carrier")?;
        let mut word = String::new();
        File::from(file.context("no descriptor came")?).read_to_string(&mut word)?;
        ensure!(word == "in flight", "the pipe under way holds {word:?}");
        let own = Credentials {
            pid: std::process::id().cast_signed(),
            uid: nix::unistd::getuid().as_raw(),
            gid: nix::unistd::getgid().as_raw(),
        };
        ensure!(credentials == Some(own), "it came from {credentials:?}");
        ensure!(self.packet(b"behind")?.0.is_none(), "a descriptor came twice");
        Ok(())
    }

    /// The next packet. Looked at first, which also gives what it carries.
    fn packet(&self, expected: &[u8]) -> Result<(Option<OwnedFd>, Option<Credentials>)> {
        let Message { data, mut files, credentials, .. } = peek(self.packets.1.as_fd(), 32)?;
        ensure!(data == expected, "{data:?} came for {expected:?}");
        let length = recv(self.packets.1.as_raw_fd(), &mut [0; 32], MsgFlags::MSG_DONTWAIT)?;
        ensure!(length == expected.len(), "a packet of {length} bytes");
        Ok((files.pop(), credentials))
    }

    fn check(&mut self) -> Result<()> {
        ensure!(self.far.read_timeout()? == Some(Duration::from_millis(12_000)), "SO_RCVTIMEO changed");
        ensure!(getsockopt(&self.far, sockopt::RcvBuf)? == 100_000, "SO_RCVBUF changed");
        self.client.write_all(b"question")?;
        let mut word = [0; 8];
        self.accepted.read_exact(&mut word)?;
        ensure!(&word == b"question", "the connection lost something");
        let names = (self.client.peer_addr()?, self.accepted.local_addr()?);
        ensure!(names.0.as_pathname() == Some(&self.path), "the client's peer is {:?}", names.0);
        ensure!(names.1.as_pathname() == Some(&self.path), "the accepted one is called {:?}", names.1);
        for stream in [&self.client, &self.accepted, &self.near] {
            let peer = getsockopt(stream, sockopt::PeerCredentials)?;
            ensure!(peer == UnixCredentials::new(), "SO_PEERCRED is {peer:?}");
        }
        let mut newcomer = UnixStream::connect(&self.path).context("connecting to the listener")?;
        let (mut served, _) = self.listener.accept()?;
        newcomer.write_all(b"hello")?;
        drop(newcomer);
        let mut text = String::new();
        served.read_to_string(&mut text)?;
        ensure!(text == "hello", "a new connection brought {text:?}");
        Ok(())
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let mut sockets = set_up(stage)?;
    loop {
        sockets.take(300)?;
        sockets.put(300)?;
        sockets.take_datagrams()?;
        sockets.send_datagrams()?;
        sockets.take_packets()?;
        sockets.send_packets()?;
        sockets.check()?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    sockets.take(QUEUED)?;
    let mut text = String::new();
    sockets.half.1.read_to_string(&mut text)?;
    ensure!(text == "the end", "half of a pair holds {text:?}");
    (&sockets.half.1).write_all(b"!")?;
    let mut byte = [0; 1];
    sockets.half.0.read_exact(&mut byte)?;
    text.clear();
    sockets.orphan.read_to_string(&mut text)?;
    ensure!(text == "last words", "the orphan holds {text:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

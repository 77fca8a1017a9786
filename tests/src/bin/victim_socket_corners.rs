//! Corners of sockets: looks that go on from an offset, names whose file is gone, sockets that hold each other in messages,
//! filters.

use anyhow::{Context, Result, ensure};
use crfs_sys::socket_options::{attach_filter, filter, get_number, set_number};
use crfs_sys::socket_queue::{peek, send};
use crfs_tests::victim::{self, Stage};
use nix::sys::socket::{MsgFlags, recv};
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;

const DIGITS: &[u8] = b"0123456789";
/// From where the next look begins.
const OFFSET: i32 = 3;

/// Whoever has received the digits looks at two of them.
fn look(socket: &impl AsFd) -> Result<()> {
    let option = |socket: &_| get_number(AsFd::as_fd(socket), libc::SOL_SOCKET, libc::SO_PEEK_OFF);
    ensure!(option(socket)? == OFFSET, "SO_PEEK_OFF is {}", option(socket)?);
    let data = peek(socket.as_fd(), 2)?.data;
    ensure!(data == b"34", "the look from {OFFSET} shows {data:?}");
    ensure!(option(socket)? == OFFSET + 2, "the look went on to {}", option(socket)?);
    set_number(socket.as_fd(), libc::SOL_SOCKET, libc::SO_PEEK_OFF, OFFSET)?;
    Ok(())
}

/// A filter that lets datagrams of up to 4 bytes pass: BPF_LD | BPF_W | BPF_LEN; BPF_JMP | BPF_JGT | BPF_K, 4; BPF_RET | BPF_K.
const SHORT_ONES: [[u8; 8]; 4] =
    [[0x80, 0, 0, 0, 0, 0, 0, 0], [0x25, 0, 1, 0, 4, 0, 0, 0], [6, 0, 0, 0, 0xff, 0, 0, 0], [6, 0, 0, 0, 0, 0, 0, 0]];

/// A datagram socket with a filter, and in its queue what came before the filter did.
struct Filtered {
    sender: UnixDatagram,
    receiver: UnixDatagram,
}

impl Filtered {
    fn new() -> Result<Self> {
        let (sender, receiver) = UnixDatagram::pair()?;
        receiver.set_nonblocking(true)?;
        sender.send(DIGITS)?;
        attach_filter(receiver.as_fd(), SHORT_ONES.as_flattened())?;
        Ok(Filtered { sender, receiver })
    }

    fn receive(&self) -> Result<Vec<u8>> {
        let mut word = [0; 16];
        let length = self.receiver.recv(&mut word)?;
        Ok(word[..length].to_vec())
    }

    fn check(&self) -> Result<()> {
        ensure!(filter(self.receiver.as_fd())? == SHORT_ONES.as_flattened(), "another filter");
        self.sender.send(DIGITS)?;
        Ok(())
    }

    fn last(&self) -> Result<()> {
        self.sender.send(b"0123")?;
        for expected in [DIGITS, b"0123"] {
            let came = self.receive()?;
            ensure!(came == expected, "{came:?} passed the filter");
        }
        ensure!(self.receive().is_err(), "something else passed the filter");
        Ok(())
    }
}

/// A datagram socket and a connection, both to names whose files were removed.
struct Nowhere {
    path: PathBuf,
    sender: UnixDatagram,
    receiver: UnixDatagram,
    listener: UnixListener,
    client: UnixStream,
}

impl Nowhere {
    fn new(stage: &Stage) -> Result<Self> {
        let (path, other) = (victim::suffixed(stage.path(), "gone"), victim::suffixed(stage.path(), "gone-too"));
        let (receiver, sender) = (UnixDatagram::bind(&path)?, UnixDatagram::unbound()?);
        sender.connect(&path)?;
        let listener = UnixListener::bind(&other)?;
        let client = UnixStream::connect(&other)?;
        fs::remove_file(&path)?;
        fs::remove_file(&other)?;
        Ok(Nowhere { path, sender, receiver, listener, client })
    }

    fn check(&self) -> Result<()> {
        let name = self.receiver.local_addr()?;
        ensure!(name.as_pathname() == Some(&self.path), "the receiver is called {name:?}");
        ensure!(!self.path.exists(), "its file is there again");
        self.sender.send(b"nowhere")?;
        let mut word = [0; 16];
        let length = self.receiver.recv(&mut word)?;
        ensure!(&word[..length] == b"nowhere", "{:?} came", &word[..length]);
        let (client, listener) = (self.client.peer_addr()?, self.listener.local_addr()?);
        ensure!(client.as_pathname() == listener.as_pathname(), "the client's peer is {client:?}, not {listener:?}");
        Ok(())
    }
}

/// Two sockets, each in a message that waits in the other; nobody else holds the second.
struct Circle {
    to_first: UnixDatagram,
    first: UnixDatagram,
    to_second: UnixDatagram,
}

impl Circle {
    fn new() -> Result<Self> {
        let (to_first, first) = UnixDatagram::pair()?;
        let (to_second, second) = UnixDatagram::pair()?;
        let circle = Circle { to_first, first, to_second };
        circle.close(second.as_fd())?;
        Ok(circle)
    }

    fn close(&self, second: std::os::fd::BorrowedFd<'_>) -> Result<()> {
        send(self.to_first.as_fd(), b"second", &[second], None, &[])?;
        send(self.to_second.as_fd(), b"first", &[self.first.as_fd()], None, &[])?;
        Ok(())
    }

    fn check(&self) -> Result<()> {
        let second = take(&self.first, b"second")?;
        let first = take(&second, b"first")?;
        self.to_first.send(b"one")?;
        let mut word = [0; 8];
        let length = recv(first.as_raw_fd(), &mut word, MsgFlags::MSG_DONTWAIT)?;
        ensure!(&word[..length] == b"one", "it is another first");
        self.close(second.as_fd())
    }
}

/// Receives a word, with the descriptor it carries, which the look before has given.
fn take(socket: &impl AsFd, word: &[u8]) -> Result<OwnedFd> {
    let mut message = peek(socket.as_fd(), 16)?;
    ensure!(message.data == word, "{:?} came for {word:?}", message.data);
    recv(socket.as_fd().as_raw_fd(), &mut [0; 16], MsgFlags::MSG_DONTWAIT)?;
    message.files.pop().context("no descriptor came")
}

fn run(stage: &mut Stage) -> Result<()> {
    let (mut near, far) = UnixStream::pair()?;
    near.write_all(DIGITS)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut client = TcpStream::connect(listener.local_addr()?)?;
    let (served, _) = listener.accept()?;
    client.write_all(DIGITS)?;
    victim::wait_until("the digits", || peek(served.as_fd(), 16).is_ok_and(|message| message.data == DIGITS))?;
    for socket in [far.as_fd(), served.as_fd()] {
        set_number(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, OFFSET)?;
    }
    let (nowhere, circle, filtered) = (Nowhere::new(stage)?, Circle::new()?, Filtered::new()?);
    loop {
        look(&far)?;
        look(&served)?;
        nowhere.check()?;
        circle.check()?;
        filtered.check()?;
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    filtered.last()?;
    for socket in [far.as_raw_fd(), served.as_raw_fd()] {
        let mut digits = [0; 16];
        let length = recv(socket, &mut digits, MsgFlags::MSG_DONTWAIT)?;
        ensure!(&digits[..length] == DIGITS, "{:?} is left", &digits[..length]);
    }
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! Connections to sockets outside of the container, whose paths are its arguments: of a stream and of a datagram socket. Through each it sends
//! one word at the beginning and one at the end.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::ExitCode;

fn run(stage: &mut Stage) -> Result<()> {
    let [stream, datagram] = stage.arguments() else { anyhow::bail!("two paths are expected") };
    let mut stream = UnixStream::connect(stream).with_context(|| stream.clone())?;
    let datagrams = UnixDatagram::unbound()?;
    datagrams.connect(datagram).with_context(|| datagram.clone())?;
    stream.write_all(b"before")?;
    datagrams.send(b"before")?;
    loop {
        // What it is sent it leaves there.
        let look = recv(stream.as_raw_fd(), &mut [0; 8], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK);
        ensure!(matches!(look, Ok(1..) | Err(Errno::EAGAIN)), "the connection has ended: {look:?}");
        ensure!(datagrams.peer_addr()?.as_pathname().is_some(), "the datagram socket is connected to nothing");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    stream.write_all(b"after")?;
    datagrams.send(b"after")?;
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

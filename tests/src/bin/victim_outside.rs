//! Connections to sockets outside of the container, whose paths (or, after `@`, abstract names) are its arguments: of a stream and of a datagram socket. Through each it sends
//! one word at the beginning and one at the end.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::process::ExitCode;

/// A path, or `@` and an abstract name.
fn address(name: &str) -> Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => Ok(SocketAddr::from_abstract_name(name)?),
        None => Ok(SocketAddr::from_pathname(name)?),
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let [stream, datagram] = stage.arguments() else { anyhow::bail!("two names are expected") };
    let mut stream = UnixStream::connect_addr(&address(stream)?).with_context(|| stream.clone())?;
    let datagrams = UnixDatagram::unbound()?;
    datagrams.connect_addr(&address(datagram)?).with_context(|| datagram.clone())?;
    stream.write_all(b"before")?;
    datagrams.send(b"before")?;
    loop {
        // What it is sent it leaves there.
        let look = recv(stream.as_raw_fd(), &mut [0; 8], MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_PEEK);
        ensure!(matches!(look, Ok(1..) | Err(Errno::EAGAIN)), "the connection has ended: {look:?}");
        ensure!(!datagrams.peer_addr()?.is_unnamed(), "the datagram socket is connected to nothing");
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

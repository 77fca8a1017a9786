//! Things that are not carried: four netlink sockets that ask for generic families. The program uses them all the time, so that it is seen whether a refused
//! checkpoint left them alone.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, sendto, socket,
};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

/// `struct nlmsghdr` that asks for an acknowledgement (NLM_F_REQUEST | NLM_F_ACK) and for nothing else (NLMSG_NOOP).
const QUESTION: [u8; 16] = [16, 0, 0, 0, 1, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn open() -> Result<OwnedFd> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkGeneric)?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(netlink)
}

fn run(stage: &mut Stage) -> Result<()> {
    let sockets = [open()?, open()?, open()?, open()?];
    let name = |socket: &OwnedFd| getsockname::<NetlinkAddr>(socket.as_raw_fd());
    let names = [name(&sockets[0])?, name(&sockets[1])?, name(&sockets[2])?, name(&sockets[3])?];
    loop {
        for (socket, before) in sockets.iter().zip(names) {
            ensure!(name(socket)? == before, "a socket has another name");
            sendto(socket.as_raw_fd(), &QUESTION, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
            let mut answer = [0; 64];
            let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
            ensure!(length > 16, "the kernel answered {length} bytes");
        }
        if !stage.end_round_and_rest()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

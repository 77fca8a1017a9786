//! A POSIX message queue that tells of its next message over a netlink socket, as the C library has it for SIGEV_THREAD: a thread waits
//! there for the cookie. The message comes at the very end.

use anyhow::{Context, Result, ensure};
use crfs_sys::mqueue::{self, Attributes};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, socket};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};
use std::process::ExitCode;

const NAME: &CStr = c"told-by-thread";
const COOKIE: [u8; 32] = *b"a function, an argument, and 0\0\0";
/// NOTIFY_WOKENUP (include/uapi/linux/mqueue.h).
const WOKEN: u8 = 1;

fn run(stage: &mut Stage) -> Result<()> {
    let queue = mqueue::create(NAME, Attributes { capacity: 2, message_size: 16 })?;
    let told = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    mqueue::notify_over(queue.as_fd(), told.as_fd(), &COOKIE)?;
    let heard = told.try_clone()?;
    let waiting = std::thread::spawn(move || -> nix::Result<[u8; 32]> {
        let mut cookie = [0; 32];
        loop {
            match recv(heard.as_raw_fd(), &mut cookie, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_WAITALL) {
                Err(Errno::EINTR) => {}
                other => return other.map(|_| cookie),
            }
        }
    });
    loop {
        let second = mqueue::notify(queue.as_fd(), Some(None));
        ensure!(second == Err(Errno::EBUSY), "registering beside the registration: {second:?}");
        ensure!(!waiting.is_finished(), "who waits for the cookie goes on without one");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    mqueue::send(queue.as_fd(), b"tell", 0)?;
    let mut expected = COOKIE;
    expected[31] = WOKEN;
    let cookie = waiting.join().ok().context("the thread failed")??;
    ensure!(cookie == expected, "the cookie is {cookie:?}");
    Ok(mqueue::unlink(NAME)?)
}

fn main() -> ExitCode {
    victim::main(run)
}

//! An epoll instance with data for each of its files: level and edge triggered, one shot, shot already, and one inside another.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::{dup, pipe};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

fn ready(epoll: &Epoll, timeout: u16) -> Result<Vec<(u64, EpollFlags)>> {
    let mut events = [EpollEvent::empty(); 8];
    let count = epoll.wait(&mut events, EpollTimeout::from(timeout))?;
    let mut ready: Vec<_> = events[..count].iter().map(|event| (event.data(), event.events())).collect();
    ready.sort_unstable_by_key(|&(data, _)| data);
    Ok(ready)
}

fn run(stage: &mut Stage) -> Result<()> {
    let input = EpollFlags::EPOLLIN;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let outer = Epoll::new(EpollCreateFlags::empty())?;
    let level = EventFd::from_value_and_flags(1, EfdFlags::EFD_NONBLOCK)?;
    let silent = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?;
    let (pipe_out, pipe_in) = pipe()?;
    epoll.add(&level, EpollEvent::new(input, 0xfeed_f00d_dead_beef))?;
    epoll.add(&silent, EpollEvent::new(input | EpollFlags::EPOLLET, 2))?;
    epoll.add(&pipe_out, EpollEvent::new(input | EpollFlags::EPOLLONESHOT, 3))?;
    epoll.add(&pipe_in, EpollEvent::new(EpollFlags::EPOLLERR, 4))?;
    outer.add(&epoll.0, EpollEvent::new(input, 99))?;
    // As a server with many threads has them: reported once, and left to one thread until it asks for more.
    let (mut stream, mut peer) = UnixStream::pair()?;
    let once = input | EpollFlags::EPOLLONESHOT;
    epoll.add(&stream, EpollEvent::new(once, 5))?;
    let again = dup(&pipe_in)?;
    epoll.add(&again, EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT | EpollFlags::EPOLLET, 6))?;
    peer.write_all(b"request")?;
    let shot = [(5, input), (6, EpollFlags::EPOLLOUT), (0xfeed_f00d_dead_beef, input)];
    ensure!(ready(&epoll, 0)? == shot, "at first ready are {:?}", ready(&epoll, 0)?);
    loop {
        ensure!(ready(&outer, 0)? == [(99, input)], "the outer instance does not see the inner one");
        ensure!(ready(&epoll, 0)? == [(0xfeed_f00d_dead_beef, input)], "ready are {:?}", ready(&epoll, 0)?);
        silent.write(1)?;
        let both = [(2, input), (0xfeed_f00d_dead_beef, input)];
        ensure!(ready(&epoll, 0)? == both, "the edge was not seen");
        ensure!(ready(&epoll, 0)?.len() == 1, "the edge was seen twice");
        silent.read()?;
        level.read()?;
        ensure!(ready(&epoll, 5)?.is_empty(), "something is ready that should not be");
        level.write(1)?;
        if !stage.end_round()? {
            break;
        }
    }
    drop(peer);
    ensure!(ready(&epoll, 0)?.len() == 1, "what was switched off tells of a hang-up");
    epoll.modify(&stream, &mut EpollEvent::new(once, 5))?;
    ensure!(ready(&epoll, 0)?.iter().any(|(data, _)| *data == 5), "the request is not reported again");
    let mut request = String::new();
    stream.read_to_string(&mut request)?;
    ensure!(request == "request", "the request has become {request:?}");
    nix::unistd::write(&pipe_in, b"x")?;
    ensure!(ready(&epoll, 0)?.contains(&(3, input)), "the pipe is not watched any more");
    ensure!(!ready(&epoll, 0)?.contains(&(3, input)), "one shot came twice");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

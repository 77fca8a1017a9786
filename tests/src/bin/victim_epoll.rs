//! An epoll instance with data for each of its files: level and edge triggered, one shot, and one inside another.

use anyhow::{Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::pipe;
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
    nix::unistd::write(&pipe_in, b"x")?;
    ensure!(ready(&epoll, 0)?.contains(&(3, input)), "the pipe is not watched any more");
    ensure!(!ready(&epoll, 0)?.contains(&(3, input)), "one shot came twice");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

//! An epoll instance that remembers files under numbers which were closed or used again, since duplicates keep what they named.

use anyhow::{Context, Result, ensure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, dup, dup2, pause, pipe, read, write};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

/// The number was closed.
const CLOSED: u64 = 1;
/// The number names another file by now,
const REPLACED: u64 = 2;
/// which is watched too.
const IN_ITS_PLACE: u64 = 3;
/// Told once, and closed.
const SWITCHED_OFF: u64 = 4;
/// Only another process has it, under another number.
const ELSEWHERE: u64 = 5;

fn ready(epoll: &Epoll) -> Result<Vec<u64>> {
    let mut events = [EpollEvent::empty(); 8];
    let count = epoll.wait(&mut events, EpollTimeout::ZERO)?;
    let mut ready: Vec<_> = events[..count].iter().map(EpollEvent::data).collect();
    ready.sort_unstable();
    Ok(ready)
}

/// Number, events and data of each target, as fdinfo shows them. A freeze must not meet it.
fn targets(epoll: &Epoll) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", epoll.0.as_raw_fd()))?;
    let lines = text.lines().filter(|line| line.starts_with("tfd:"));
    let shown =
        lines.map(|line| line.split(" pos:").next().map(ToOwned::to_owned).context("a target without a position"));
    let mut shown = shown.collect::<Result<Vec<_>>>()?;
    shown.sort_unstable();
    Ok(shown)
}

/// A process that holds what it inherits as `held`, under a number of its own.
fn holder(held: OwnedFd) -> Result<Pid> {
    let (moved, tell) = pipe()?;
    match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => {
            drop(held);
            ensure!(read(&moved, &mut [0])? == 1, "the other process has ended");
            Ok(child)
        }
        Forked::Child => {
            let hold = || -> Result<OwnedFd> {
                set_pdeathsig(Signal::SIGKILL)?;
                let moved = dup(&held)?;
                drop(held);
                write(&tell, b"x")?;
                Ok(moved)
            };
            let _kept = hold().unwrap_or_else(|error| {
                eprintln!("{error:#}");
                exit_now(1)
            });
            loop {
                pause();
            }
        }
    }
}

fn run(stage: &mut Stage) -> Result<()> {
    let input = EpollFlags::EPOLLIN;
    let once = input | EpollFlags::EPOLLONESHOT;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;

    let counter = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?;
    let closed = dup(&counter)?;
    epoll.add(&closed, EpollEvent::new(input, CLOSED))?;
    drop(closed);

    let (pipe_out, pipe_in) = pipe()?;
    let mut number = dup(&pipe_out)?;
    epoll.add(&number, EpollEvent::new(input | EpollFlags::EPOLLET, REPLACED))?;
    let in_its_place = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?;
    dup2(&in_its_place, &mut number)?;
    epoll.add(&number, EpollEvent::new(once, IN_ITS_PLACE))?;

    let (mut stream, mut peer) = UnixStream::pair()?;
    let closed = dup(&stream)?;
    epoll.add(&closed, EpollEvent::new(once, SWITCHED_OFF))?;
    drop(closed);
    peer.write_all(b"request")?;
    ensure!(ready(&epoll)? == [SWITCHED_OFF], "at first ready are {:?}", ready(&epoll)?);

    let (far, mut near) = UnixStream::pair()?;
    epoll.add(&far, EpollEvent::new(input, ELSEWHERE))?;
    let other = holder(far.into())?;
    near.write_all(b"for ever")?;

    let at_first = targets(&epoll)?;
    ensure!(at_first.len() == 5, "watched are {at_first:?}");
    loop {
        ensure!(ready(&epoll)? == [ELSEWHERE], "ready are {:?}", ready(&epoll)?);
        counter.write(1)?;
        ensure!(ready(&epoll)? == [CLOSED, ELSEWHERE], "of a closed number ready are {:?}", ready(&epoll)?);
        counter.read()?;
        write(&pipe_in, b"x")?;
        ensure!(ready(&epoll)? == [REPLACED, ELSEWHERE], "of a number used again ready are {:?}", ready(&epoll)?);
        ensure!(read(&pipe_out, &mut [0])? == 1, "the pipe is empty");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    let now = targets(&epoll)?;
    ensure!(now == at_first, "watched were {at_first:?}, and are {now:?}");
    in_its_place.write(1)?;
    ensure!(ready(&epoll)? == [IN_ITS_PLACE, ELSEWHERE], "what took a number is not watched any more");
    ensure!(ready(&epoll)? == [ELSEWHERE], "one shot came twice");
    kill(other, Signal::SIGKILL)?;
    waitpid(other, None)?;
    ensure!(ready(&epoll)?.is_empty(), "what no process has any more is still watched");
    drop(peer);
    let mut request = String::new();
    stream.read_to_string(&mut request)?;
    ensure!(request == "request", "the request has become {request:?}");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

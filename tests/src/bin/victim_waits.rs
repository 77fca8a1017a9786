//! Calls that wait: none may return early or with EINTR, and what they wait for must still reach them.

use anyhow::{Context, Result, bail, ensure};
use crfs_sys::{signal, sigqueue, waits};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, getsockopt, recv, setsockopt, socketpair, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::time::{ClockId, clock_gettime};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const REAL_TIME: i32 = 36;
const SHORT: Duration = Duration::from_millis(40);
const LONG: Duration = Duration::from_millis(1500);

struct Shared {
    counts: [AtomicU64; 11],
    /// Two wait for it, with a time limit of its own.
    socket: OwnedFd,
    stop: AtomicBool,
    never: AtomicU32,
    event: EventFd,
    epoll: Epoll,
}

fn now() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

/// Repeats a wait that must time out until told to stop: an error, or an end before its time, is a failure.
fn repeat(shared: &Shared, index: usize, time: Duration, wait: impl Fn() -> nix::Result<()>) -> Result<()> {
    while !shared.stop.load(Ordering::Relaxed) {
        let start = now()?;
        let result = wait();
        if shared.stop.load(Ordering::SeqCst) {
            // The event is there now: poll and epoll are right to return.
            break;
        }
        result.with_context(|| format!("wait {index}"))?;
        let taken = now()?.checked_sub(start).context("CLOCK_MONOTONIC went back")?;
        // poll and epoll count whole milliseconds.
        ensure!(taken + Duration::from_millis(1) >= time, "wait {index} ended after {taken:?} and not {time:?}");
        shared.counts[index].fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn expect<T: std::fmt::Debug>(result: nix::Result<T>, expected: Errno) -> nix::Result<()> {
    match result {
        Err(errno) if errno == expected => Ok(()),
        Err(errno) => Err(errno),
        Ok(_) => Err(Errno::EPROTO),
    }
}

fn work(shared: &Shared, index: usize) -> Result<()> {
    let milliseconds = u16::try_from(SHORT.as_millis())?;
    match index {
        0 => repeat(shared, 0, SHORT, || waits::nanosleep(SHORT)),
        1 => repeat(shared, 1, LONG, || waits::nanosleep(LONG)),
        2 => repeat(shared, 2, SHORT, || {
            let mut fds = [PollFd::new(shared.event.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, PollTimeout::from(milliseconds)).and_then(timed_out)
        }),
        3 => repeat(shared, 3, SHORT, || expect(waits::futex_wait(&shared.never, 0, Some(SHORT)), Errno::ETIMEDOUT)),
        4 => repeat(shared, 4, SHORT, || {
            shared.epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::from(milliseconds)).and_then(timed_out)
        }),
        5 => repeat(shared, 5, SHORT, || expect(sigqueue::take(signal::bit(REAL_TIME), Some(SHORT)), Errno::EAGAIN)),
        6 => repeat(shared, 6, SHORT, || {
            let until = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
            waits::sleep_until(Duration::from(until) + SHORT)
        }),
        9 | 10 => repeat(shared, index, SHORT, || {
            let received = recv(shared.socket.as_raw_fd(), &mut [0], MsgFlags::empty());
            // What others see of it must not change.
            let kept = getsockopt(&shared.socket, sockopt::ReceiveTimeout)? == limit();
            expect(if kept { received } else { Err(Errno::ERANGE) }, Errno::EAGAIN)
        }),
        // These two wait without end until the program is told to stop.
        7 => {
            let count = shared.epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE)?;
            ensure!(count == 1 && shared.stop.load(Ordering::SeqCst), "epoll_wait without end ended early");
            Ok(())
        }
        _ => {
            match waits::futex_wait(&shared.never, 0, None) {
                Ok(()) | Err(Errno::EAGAIN) => {}
                Err(errno) => bail!("futex without end: {errno}"),
            }
            ensure!(shared.stop.load(Ordering::SeqCst), "futex without end ended early");
            Ok(())
        }
    }
}

fn limit() -> TimeVal {
    TimeVal::microseconds(40_000)
}

fn timed_out<T: Default + PartialEq>(ready: T) -> nix::Result<()> {
    if ready == T::default() { Ok(()) } else { Err(Errno::EPROTO) }
}

fn run(stage: &mut Stage) -> Result<()> {
    signal::set_mask(signal::bit(REAL_TIME))?;
    let event = EventFd::from_flags(EfdFlags::EFD_NONBLOCK)?;
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    epoll.add(&event, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
    let (socket, _far) = socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit())?;
    let shared = Arc::new(Shared {
        counts: [const { AtomicU64::new(0) }; 11],
        stop: AtomicBool::new(false),
        never: AtomicU32::new(0),
        event,
        epoll,
        socket,
    });
    let start = |index| {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || work(&shared, index))
    };
    let threads: Vec<_> = (0..shared.counts.len()).map(start).collect();
    loop {
        let before: Vec<u64> = shared.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let short = [0, 2, 3, 4, 5, 6, 9, 10];
        let ended = || threads.iter().any(|thread: &std::thread::JoinHandle<_>| thread.is_finished());
        victim::wait_until("every short wait to end", || {
            ended() || short.iter().all(|&index| shared.counts[index].load(Ordering::Relaxed) > before[index])
        })?;
        if ended() || !stage.end_round()? {
            break;
        }
    }
    shared.stop.store(true, Ordering::SeqCst);
    shared.event.write(1)?;
    shared.never.store(1, Ordering::SeqCst);
    victim::wait_until("the futex waiter to be woken", || {
        // Woken again and again: it may be between two tries.
        waits::futex_wake(&shared.never).is_ok() && threads[8].is_finished()
    })?;
    let failures: Vec<String> = threads
        .into_iter()
        .filter_map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panicked"))).err())
        .map(|error| format!("{error:#}"))
        .collect();
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

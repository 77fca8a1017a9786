//! Calls that block on locks, a child, a full queue and sockets: none may return early or with EINTR, and what it blocks on must still
//! reach it.

use anyhow::{Context, Result, anyhow, ensure};
use crfs_sys::lock::flock;
use crfs_sys::mqueue::{self, Attributes};
use crfs_tests::victim::{self, Stage, suffixed};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{MsgFlags, accept, recv, recvmsg, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::sys::uio::{readv, writev};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, pause, write};
use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

const LIMIT_MS: u64 = 40;
const LIMIT: Duration = Duration::from_millis(LIMIT_MS);
const FULL: &[u8] = b"full";

/// A wait that ends by its time limit, over and over.
type Limited = Box<dyn Fn() -> nix::Result<usize> + Send>;
/// A wait without one.
type Endless = Box<dyn FnOnce() -> nix::Result<()> + Send>;

fn now(clock: ClockId) -> nix::Result<Duration> {
    clock_gettime(clock).map(Duration::from)
}

/// Waits again and again until told to stop. Sockets say EAGAIN when the time is over, queues ETIMEDOUT.
fn repeat(name: &str, count: &AtomicU64, stop: &AtomicBool, wait: &Limited) -> Result<()> {
    while !stop.load(Ordering::SeqCst) {
        let start = now(ClockId::CLOCK_MONOTONIC)?;
        match wait() {
            Err(Errno::EAGAIN | Errno::ETIMEDOUT) => {}
            other => return Err(anyhow!("{name}: {other:?}")),
        }
        let taken = now(ClockId::CLOCK_MONOTONIC)?.saturating_sub(start);
        // The kernel counts the limits of sockets in ticks.
        ensure!(taken + Duration::from_millis(5) >= LIMIT, "{name} ended after {taken:?} and not {LIMIT:?}");
        count.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

fn with_limits(socket: impl AsFd) -> nix::Result<()> {
    let limit = TimeVal::milliseconds(i64::try_from(LIMIT_MS).unwrap_or(0));
    setsockopt(&socket, sockopt::ReceiveTimeout, &limit)?;
    setsockopt(&socket, sockopt::SendTimeout, &limit)
}

/// A connection over loopback: the far end and ours, which has limits.
fn connection(listener: &TcpListener) -> Result<(TcpStream, TcpStream)> {
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    with_limits(&ours)?;
    Ok((far, ours))
}

/// Both ends of a datagram socket whose queue is full; ours has limits.
fn full_datagrams() -> Result<(UnixDatagram, UnixDatagram)> {
    let (ours, far) = UnixDatagram::pair()?;
    ours.set_nonblocking(true)?;
    while ours.send(FULL).is_ok() {}
    ours.set_nonblocking(false)?;
    with_limits(&ours)?;
    Ok((far, ours))
}

fn full_queue() -> Result<OwnedFd> {
    let queue = mqueue::create(c"blocked", Attributes { capacity: 1, message_size: 16 })?;
    mqueue::unlink(c"blocked")?;
    mqueue::send(queue.as_fd(), FULL, 1)?;
    Ok(queue)
}

fn range(kind: i32) -> libc::flock {
    libc::flock { l_type: i16::try_from(kind).unwrap_or(0), l_whence: 0, l_start: 0, l_len: 1, l_pid: 0 }
}

/// Holds a POSIX lock until it is ended.
fn holder(path: &std::path::Path) -> Result<Pid> {
    let held = suffixed(path, "held");
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let holder = victim::child(|| {
        fcntl(&file, FcntlArg::F_SETLK(&range(libc::F_WRLCK)))?;
        File::create(&held)?;
        loop {
            pause();
        }
    })?;
    victim::wait_until("the child to lock", || suffixed(path, "held").exists())?;
    Ok(holder)
}

fn limited(listener: TcpListener, queue: OwnedFd) -> Result<Vec<(&'static str, Limited)>> {
    let mut limited: Vec<(&'static str, Limited)> = Vec::new();
    let mut add = |name, wait: Limited| limited.push((name, wait));
    let (far, ours) = connection(&listener)?;
    add("recv on TCP", {
        let far = far.try_clone()?;
        let ours = ours.try_clone()?;
        Box::new(move || {
            let _far = &far;
            recv(ours.as_raw_fd(), &mut [0], MsgFlags::empty())
        })
    });
    add("recvmsg on TCP", {
        let (far, ours) = connection(&listener)?;
        Box::new(move || {
            let _far = &far;
            let mut bytes = [0];
            let mut parts = [IoSliceMut::new(&mut bytes)];
            recvmsg::<()>(ours.as_raw_fd(), &mut parts, None, MsgFlags::empty()).map(|message| message.bytes)
        })
    });
    add(
        "readv on TCP",
        Box::new(move || {
            let _far = &far;
            readv(&ours, &mut [IoSliceMut::new(&mut [0])])
        }),
    );
    add("accept on TCP", {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        with_limits(&listener)?;
        Box::new(move || accept(listener.as_raw_fd()).map(|_| 0))
    });
    for (name, how) in [("send", 0), ("write", 1), ("writev", 2)] {
        let (far, ours) = full_datagrams()?;
        add(
            name,
            Box::new(move || {
                let _far = &far;
                match how {
                    0 => send(ours.as_raw_fd(), FULL, MsgFlags::empty()),
                    1 => write(&ours, FULL),
                    _ => writev(&ours, &[IoSlice::new(FULL)]),
                }
            }),
        );
    }
    add(
        "mq_timedsend",
        Box::new(move || {
            let until = now(ClockId::CLOCK_REALTIME)? + LIMIT;
            mqueue::send_until(queue.as_fd(), FULL, until).map(|()| 0)
        }),
    );
    Ok(limited)
}

fn run(stage: &mut Stage) -> Result<()> {
    let (locked, flocked) = (suffixed(stage.path(), "locked"), suffixed(stage.path(), "flocked"));
    let child = holder(&locked)?;
    let whole = File::create(&flocked)?;
    flock(whole.as_fd(), libc::LOCK_EX)?;
    let (ours, theirs) = (File::options().write(true).open(&locked)?, File::open(&flocked)?);
    let endless_queue = Arc::new(full_queue()?);
    let sender = Arc::clone(&endless_queue);
    let endless: [(&str, Endless); 4] = [
        ("F_SETLKW", Box::new(move || fcntl(&ours, FcntlArg::F_SETLKW(&range(libc::F_WRLCK))).map(drop))),
        ("flock", Box::new(move || Flock::lock(theirs, FlockArg::LockShared).map(drop).map_err(|(_, errno)| errno))),
        ("waitid", Box::new(move || waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).map(drop))),
        ("mq_send", Box::new(move || mqueue::send(sender.as_fd(), FULL, 0))),
    ];
    let limited = limited(TcpListener::bind("127.0.0.1:0")?, full_queue()?)?;
    let stop = Arc::new(AtomicBool::new(false));
    let counts: Vec<Arc<AtomicU64>> = limited.iter().map(|_| Arc::default()).collect();
    let mut threads: Vec<JoinHandle<Result<()>>> = Vec::new();
    for ((name, wait), count) in limited.into_iter().zip(&counts) {
        let (stop, count) = (Arc::clone(&stop), Arc::clone(count));
        threads.push(spawn(move || repeat(name, &count, &stop, &wait)));
    }
    for (name, wait) in endless {
        let stop = Arc::clone(&stop);
        threads.push(spawn(move || {
            wait().context(name)?;
            ensure!(stop.load(Ordering::SeqCst), "{name} returned early");
            Ok(())
        }));
    }
    let ended = |threads: &[JoinHandle<_>]| threads.iter().any(JoinHandle::is_finished);
    loop {
        let before: Vec<u64> = counts.iter().map(|count| count.load(Ordering::SeqCst)).collect();
        victim::wait_until("every wait with a limit to end", || {
            let mut after = counts.iter().zip(&before);
            ended(&threads) || after.all(|(count, before)| count.load(Ordering::SeqCst) > *before)
        })?;
        if ended(&threads) || !stage.end_round()? {
            break;
        }
    }
    stop.store(true, Ordering::SeqCst);
    kill(child, Signal::SIGKILL)?;
    flock(whole.as_fd(), libc::LOCK_UN)?;
    ensure!(mqueue::receive(endless_queue.as_fd())?.0 == FULL, "what was in the queue");
    victim::wait_until("all waits to end", || threads.iter().all(JoinHandle::is_finished))?;
    let ends = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("panicked"))));
    let failures: Vec<String> = ends.filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    ensure!(waitpid(child, None)? == WaitStatus::Signaled(child, Signal::SIGKILL, false), "how the child ended");
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

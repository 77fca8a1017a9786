//! Calls that wait for long, and for timers, one of each kind at the same time: each must end by its time limit, when it was to end.
//!
//! An argument tells how many seconds it will stand between a restore and its thaw: waits for a length of time take that much longer.
//! With the argument `confined` after it the first thread computes, and may no longer set a timer.

use anyhow::{Context, Result, ensure};
use crfs_sys::aio::Context as Requests;
use crfs_sys::itimer::{self, Which};
use crfs_sys::mqueue::{self, Attributes};
use crfs_sys::posix_timer::{self, Notify};
use crfs_sys::{seccomp, signal, sigqueue, sysv, waits};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::poll::{PollTimeout, poll, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollTimeout};
use nix::sys::select::{pselect, select};
use nix::sys::socket::{
    AddressFamily, Backlog, GetSockOpt, MsgFlags, SetSockOpt, SockFlag, SockType, UnixAddr, accept, bind, getsockopt,
    listen, recv, recvmsg, send, sendmsg, setsockopt, socket, socketpair, sockopt,
};
use nix::sys::time::{TimeSpec, TimeVal, TimeValLike};
use nix::sys::timerfd::{self, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::read;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::ExitCode;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(10);
/// Of lateness, on a machine that is busy, and before a restored program is thawed. Below what has passed when it is frozen.
const GRACE: Duration = Duration::from_secs(5);
const NEVER: i32 = 44;
const OF_MONOTONIC: i32 = 45;
const OF_REALTIME: i32 = 46;

type Wait = fn() -> nix::Result<()>;

/// What a wait counts.
#[derive(Clone, Copy)]
enum By {
    /// A length of time.
    Length,
    /// A date of this clock.
    Date(ClockId),
}
use By::{Date, Length};

const MONOTONIC: ClockId = ClockId::CLOCK_MONOTONIC;
const REALTIME: ClockId = ClockId::CLOCK_REALTIME;

const WAITS: [(&str, By, Wait); 28] = [
    ("nanosleep", Length, || waits::nanosleep(LIMIT)),
    ("clock_nanosleep until a time", Date(MONOTONIC), || waits::sleep_until(date(MONOTONIC)?)),
    ("clock_nanosleep of CLOCK_BOOTTIME", Length, || waits::sleep_by(ClockId::CLOCK_BOOTTIME, LIMIT)),
    ("clock_nanosleep of CLOCK_TAI", Length, || waits::sleep_by(ClockId::CLOCK_TAI, LIMIT)),
    ("poll", Length, || timed_out(poll(&mut [], PollTimeout::from(10_000u16))?)),
    ("ppoll", Length, || timed_out(ppoll(&mut [], Some(TimeSpec::from(LIMIT)), None)?)),
    ("select", Length, || timed_out(select(None, None, None, None, &mut TimeVal::seconds(10))?)),
    ("pselect", Length, || timed_out(pselect(None, None, None, None, &TimeSpec::from(LIMIT), None)?)),
    ("futex", Length, || ends(waits::futex_wait(&AtomicU32::new(0), 0, Some(LIMIT)), Errno::ETIMEDOUT)),
    ("futex until a time", Date(MONOTONIC), || {
        ends(waits::futex_wait_until(&AtomicU32::new(0), 0, date(MONOTONIC)?), Errno::ETIMEDOUT)
    }),
    ("futex_waitv until a time", Date(MONOTONIC), || {
        ends(waits::futex_waitv_until(&AtomicU32::new(0), 0, date(MONOTONIC)?), Errno::ETIMEDOUT)
    }),
    ("epoll_wait", Length, || {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        timed_out(epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::from(10_000u16))?)
    }),
    ("epoll_pwait2", Length, || {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        timed_out(waits::epoll_pwait2(epoll.0.as_fd(), Some(LIMIT), None)?)
    }),
    ("rt_sigtimedwait", Length, || ends(sigqueue::take(signal::bit(NEVER), Some(LIMIT)), Errno::EAGAIN)),
    ("semtimedop", Length, || {
        let set = sysv::make_semaphores(libc::IPC_PRIVATE, 1, 0o600)?;
        let waited = ends(sysv::take_semaphore_within(set, 0, LIMIT), Errno::EAGAIN);
        sysv::remove_semaphores(set).and(waited)
    }),
    ("io_getevents", Length, || timed_out(Requests::new(1)?.any_within(LIMIT, false)?)),
    ("io_pgetevents", Length, || timed_out(Requests::new(1)?.any_within(LIMIT, true)?)),
    ("mq_timedreceive", Date(REALTIME), || {
        let queue = mqueue::create(c"time-limits", Attributes { capacity: 1, message_size: 8 })?;
        mqueue::unlink(c"time-limits")?;
        ends(mqueue::receive_until(queue.as_fd(), date(REALTIME)?), Errno::ETIMEDOUT)
    }),
    ("recv", Length, || {
        let (near, _far) = pair(SockType::Stream)?;
        limited(&near, sockopt::ReceiveTimeout, || recv(near.as_raw_fd(), &mut [0], MsgFlags::empty()).map(drop))
    }),
    ("read of a socket", Length, || {
        let (near, _far) = pair(SockType::SeqPacket)?;
        limited(&near, sockopt::ReceiveTimeout, || read(&near, &mut [0]).map(drop))
    }),
    ("recvmsg", Length, || {
        let near = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        limited(&near, sockopt::ReceiveTimeout, || {
            recvmsg::<()>(near.as_raw_fd(), &mut [], None, MsgFlags::empty()).map(drop)
        })
    }),
    ("accept", Length, || {
        let listening = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(listening.as_raw_fd(), &UnixAddr::new_abstract(b"time-limits")?)?;
        listen(&listening, Backlog::new(1)?)?;
        limited(&listening, sockopt::ReceiveTimeout, || accept(listening.as_raw_fd()).map(drop))
    }),
    ("send", Length, || {
        let (near, _far) = pair(SockType::SeqPacket)?;
        while send(near.as_raw_fd(), &[1; 4096], MsgFlags::MSG_DONTWAIT) != Err(Errno::EAGAIN) {}
        limited(&near, sockopt::SendTimeout, || send(near.as_raw_fd(), &[2; 4096], MsgFlags::empty()).map(drop))
    }),
    ("sendmsg", Length, || {
        let (near, _far) = pair(SockType::SeqPacket)?;
        while send(near.as_raw_fd(), &[1; 4096], MsgFlags::MSG_DONTWAIT) != Err(Errno::EAGAIN) {}
        limited(&near, sockopt::SendTimeout, || {
            let text = [IoSlice::new(&[2; 4096])];
            sendmsg::<()>(near.as_raw_fd(), &text, &[], MsgFlags::empty(), None).map(drop)
        })
    }),
    ("setitimer", Length, || {
        itimer::set(Which::Real, LIMIT, Duration::ZERO)?;
        by_signal(libc::SIGALRM)
    }),
    ("timer_create", Length, || by_timer(libc::CLOCK_MONOTONIC, OF_MONOTONIC)),
    ("timer_create on the wall clock", Length, || by_timer(libc::CLOCK_REALTIME, OF_REALTIME)),
    ("timerfd", Length, || {
        let timer = TimerFd::new(timerfd::ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        timer.set(Expiration::OneShot(TimeSpec::from(LIMIT)), TimerSetTimeFlags::empty())?;
        timer.wait()
    }),
];

fn pair(kind: SockType) -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
}

/// A call on a socket with a time limit, which must be the same afterwards.
fn limited<O>(socket: &OwnedFd, option: O, call: impl Fn() -> nix::Result<()>) -> nix::Result<()>
where
    O: SetSockOpt<Val = TimeVal> + GetSockOpt<Val = TimeVal> + Copy,
{
    let limit = TimeVal::seconds(10);
    setsockopt(socket, option, &limit)?;
    ends(call(), Errno::EAGAIN)?;
    if getsockopt(socket, option)? == limit { Ok(()) } else { Err(Errno::ERANGE) }
}

/// When the time is up.
fn date(clock: ClockId) -> nix::Result<Duration> {
    Ok(Duration::from(clock_gettime(clock)?) + LIMIT)
}

fn ends<T>(result: nix::Result<T>, expected: Errno) -> nix::Result<()> {
    match result {
        Err(errno) if errno == expected => Ok(()),
        other => other.and(Err(Errno::EPROTO)),
    }
}

/// Sets a POSIX timer, and waits for its signal.
fn by_timer(clock: i32, signal: i32) -> nix::Result<()> {
    let timer = posix_timer::create(clock, Notify::Process(signal), 0)?;
    posix_timer::set(timer, false, LIMIT, Duration::ZERO)?;
    by_signal(signal)
}

fn by_signal(signal: i32) -> nix::Result<()> {
    sigqueue::take(signal::bit(signal), Some(6 * LIMIT)).map(drop)
}

fn timed_out<T: Default + PartialEq>(ready: T) -> nix::Result<()> {
    if ready == T::default() { Ok(()) } else { Err(Errno::EPROTO) }
}

fn timed(name: &str, by: By, wait: Wait, standing: Duration) -> Result<()> {
    let (clock, expected) = match by {
        Length => (MONOTONIC, LIMIT + standing),
        Date(clock) => (clock, LIMIT),
    };
    let now = || clock_gettime(clock).map(Duration::from);
    let begun = now()?;
    wait().with_context(|| name.to_owned())?;
    let taken = now()?.saturating_sub(begun);
    // poll and epoll count whole milliseconds.
    let least = expected.saturating_sub(Duration::from_millis(1));
    ensure!(taken >= least && taken < expected + GRACE, "{name} took {taken:?} and not {expected:?}");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    signal::set_mask([NEVER, OF_MONOTONIC, OF_REALTIME, libc::SIGALRM].map(signal::bit).iter().sum())?;
    let standing = stage.arguments().first().map_or(Ok(0), |seconds| seconds.parse())?;
    let standing = Duration::from_secs(standing);
    let confined = stage.arguments().get(1).is_some_and(|argument| argument == "confined");
    let threads = WAITS.map(|(name, by, wait)| std::thread::spawn(move || timed(name, by, wait, standing)));
    if confined {
        // Of this thread alone: the others were made before.
        for call in [libc::SYS_setitimer, libc::SYS_timer_settime, libc::SYS_rt_sigtimedwait] {
            seccomp::install(&seccomp::deny(call, u16::try_from(libc::EPERM)?), 0)?;
        }
    }
    loop {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(100) {
            if confined {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        if !stage.end_round()? {
            break;
        }
    }
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

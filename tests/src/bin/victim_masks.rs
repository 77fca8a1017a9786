//! Waits with a mask of their own: the signal that only this mask lets through must end the wait, and the thread's own mask come back.

use anyhow::{Context, Result, ensure};
use crfs_sys::{handler, signal, sigqueue, waits};
use crfs_tests::victim::{self, Stage};
use nix::errno::Errno;
use nix::poll::ppoll;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::select::pselect;
use nix::sys::signal::SigSet;
use nix::unistd::{Pid, gettid};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};

const SIGNAL: i32 = libc::SIGUSR1;
/// Taken by sigwaitinfo(2), with no handler.
const TAKEN: i32 = 45;

type Wait = fn() -> nix::Result<()>;

const WAITS: [(&str, Wait); 5] = [
    // nix takes the handler for granted.
    ("sigsuspend", || SigSet::empty().suspend()),
    ("ppoll", || ended(ppoll(&mut [], None, Some(SigSet::empty())))),
    ("pselect", || ended(pselect(None, None, None, None, None, &SigSet::empty()))),
    ("epoll_pwait2", || {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        ended(waits::epoll_pwait2(epoll.0.as_fd(), None, Some(0)))
    }),
    ("sigwaitinfo", || {
        let taken = sigqueue::take(signal::bit(TAKEN), None)?;
        if taken.signal == TAKEN { Ok(()) } else { Err(Errno::EPROTO) }
    }),
];

#[derive(Default)]
struct Worker {
    tid: AtomicI32,
    ended: AtomicU64,
}

#[derive(Default)]
struct Shared {
    workers: [Worker; WAITS.len()],
    stop: AtomicBool,
}

/// Such a wait ends by a handler and in no other way.
fn ended<T>(result: nix::Result<T>) -> nix::Result<()> {
    match result {
        Err(Errno::EINTR) => Ok(()),
        other => other.and(Err(Errno::EPROTO)),
    }
}

fn work(shared: &Shared, index: usize, mask: u64) -> Result<()> {
    let (worker, (name, wait)) = (&shared.workers[index], WAITS[index]);
    worker.tid.store(gettid().as_raw(), Ordering::SeqCst);
    while !shared.stop.load(Ordering::SeqCst) {
        wait().context(name)?;
        ensure!(signal::mask()? == mask, "{name}: the mask is {:#x} and not {mask:#x}", signal::mask()?);
        worker.ended.fetch_add(1, Ordering::SeqCst);
    }
    Ok(())
}

/// Sends each worker its signal, also after one could not be reached.
fn send(shared: &Shared) -> Result<()> {
    let mut result = Ok(());
    for (worker, (name, _)) in shared.workers.iter().zip(WAITS) {
        let signal = if name == "sigwaitinfo" { TAKEN } else { SIGNAL };
        let sent = sigqueue::to_thread(Pid::from_raw(worker.tid.load(Ordering::SeqCst)), signal);
        result = result.and(sent.context(name));
    }
    result
}

fn run(stage: &mut Stage) -> Result<()> {
    let mask = signal::bit(SIGNAL) | signal::bit(TAKEN);
    signal::set_mask(mask)?;
    handler::install(SIGNAL, libc::SA_RESTART, 0)?;
    let shared = Arc::new(Shared::default());
    let start = |index| {
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || work(&shared, index, mask))
    };
    let threads: Vec<_> = (0..WAITS.len()).map(start).collect();
    victim::wait_until("every thread to begin", || {
        shared.workers.iter().all(|worker| worker.tid.load(Ordering::SeqCst) != 0)
    })?;
    let any_ended = || threads.iter().any(|thread: &std::thread::JoinHandle<_>| thread.is_finished());
    let mut rounds = 0;
    loop {
        send(&shared)?;
        rounds += 1;
        victim::wait_until("every signal to end a wait", || {
            any_ended() || shared.workers.iter().all(|worker| worker.ended.load(Ordering::SeqCst) == rounds)
        })?;
        let delivered = handler::delivered(SIGNAL);
        ensure!(any_ended() || delivered == 4 * rounds, "{delivered} handlers ran for {rounds} rounds of four signals");
        if any_ended() || !stage.end_round_and_rest()? {
            break;
        }
    }
    shared.stop.store(true, Ordering::SeqCst);
    // One that has failed is gone.
    send(&shared).or_else(|error| if any_ended() { Ok(()) } else { Err(error) })?;
    let finished = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panicked"))));
    let failures: Vec<String> = finished.filter_map(|end| end.err().map(|error| format!("{error:#}"))).collect();
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

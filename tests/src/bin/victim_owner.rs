//! Descriptions that signal: processes, a thread and a group as owners, a signal of its own choice, another user who set it, one that
//! has ended, a terminal. Every byte that comes must be told to the right one, with the right number.

use anyhow::{Context, Result, ensure};
use crfs_sys::owner::{self, F_OWNER_PGRP, F_OWNER_PID, F_OWNER_TID, Owner};
use crfs_tests::victim::{self, Stage, wait_until};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::openpty;
use nix::unistd::{Pid, Uid, getpgrp, getpid, gettid, pipe2, read, setpgid, setresuid, write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

/// A real-time signal: it tells descriptor and events, once for each byte.
const CHOSEN: i32 = 40;
const USER: u32 = 1234;

/// What becomes ready, what makes it so, and what must be told then.
struct Source {
    ready: OwnedFd,
    other: OwnedFd,
    owner: Owner,
    is_asynchronous: bool,
}

impl Source {
    fn new((ready, other): (OwnedFd, OwnedFd), kind: i32, id: i32, signal: i32, uid: u32) -> Result<Self> {
        let user = |uid| setresuid(Uid::from_raw(uid), Uid::from_raw(uid), Uid::from_raw(0));
        user(uid)?;
        owner::set(ready.as_fd(), kind, id).context("F_SETOWN_EX")?;
        user(0)?;
        owner::set_signal(ready.as_fd(), signal).context("F_SETSIG")?;
        let owner = Owner { kind, id, uid, euid: uid, signal };
        Ok(Source { ready, other, owner, is_asynchronous: false })
    }

    fn asynchronous(mut self) -> Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&self.ready, FcntlArg::F_GETFL)?);
        fcntl(&self.ready, FcntlArg::F_SETFL(flags | OFlag::O_ASYNC))?;
        self.is_asynchronous = true;
        Ok(self)
    }

    fn check(&self) -> Result<()> {
        let owner = owner::get(self.ready.as_fd())?;
        ensure!(owner == self.owner, "the owner was {:?} and is {owner:?}", self.owner);
        let flags = OFlag::from_bits_retain(fcntl(&self.ready, FcntlArg::F_GETFL)?);
        ensure!(flags.contains(OFlag::O_ASYNC) == self.is_asynchronous, "the flags are {flags:?}");
        Ok(())
    }

    /// A byte comes, and is told once.
    fn tell(&self, told: &Told) -> Result<()> {
        write(&self.other, b"\n")?;
        let signal = if self.owner.signal == 0 { libc::SIGIO } else { self.owner.signal };
        let info = told.next().with_context(|| format!("descriptor {} became ready", self.ready.as_raw_fd()))?;
        ensure!(info.signal == signal, "signal {} came in the place of {signal}", info.signal);
        if self.owner.signal != 0 {
            let fd = self.ready.as_raw_fd();
            ensure!(info.fd == fd, "the signal tells descriptor {} and not {fd}", info.fd);
        }
        read(&self.ready, &mut [0; 8])?;
        Ok(())
    }
}

/// The signals that come.
struct Told(OwnedFd);

/// `struct signalfd_siginfo`: its size, and what is looked at.
#[derive(Debug)]
struct Info {
    signal: i32,
    fd: i32,
}

impl Told {
    fn look(&self) -> Result<Option<Info>> {
        let mut bytes = [0; 128];
        match read(&self.0, &mut bytes) {
            Err(Errno::EAGAIN) => Ok(None),
            Ok(128) => {
                let number = |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
                Ok(Some(Info { signal: number(0), fd: number(20) }))
            }
            other => anyhow::bail!("reading the signalfd: {other:?}"),
        }
    }

    fn next(&self) -> Result<Info> {
        let mut found = None;
        wait_until("a signal", || {
            found = self.look().ok().flatten();
            found.is_some()
        })?;
        found.context("no signal")
    }

    fn nothing(&self) -> Result<()> {
        let more = self.look()?;
        ensure!(more.is_none(), "a signal too many: {more:?}");
        Ok(())
    }
}

fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let (one, other) = UnixStream::pair()?;
    Ok((one.into(), other.into()))
}

fn run(stage: &mut Stage) -> Result<()> {
    // A group of its own, whoever started it; a session leader has one.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    let mask = 1 << (libc::SIGIO - 1) | 1 << (CHOSEN - 1);
    crfs_sys::signal::block(mask)?;
    let told = Told(crfs_sys::signalfd::create(mask)?);
    fcntl(&told.0, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let own = getpid().as_raw();
    // Out of the group that is signalled.
    let mut child = Command::new("sleep").arg("1000").process_group(0).stdin(Stdio::null()).spawn()?;
    victim::wait_until_asleep(child.id())?;
    let mut ended = Command::new("true").stdin(Stdio::null()).spawn()?;
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = send.send(gettid().as_raw());
        loop {
            std::thread::park();
        }
    });
    let thread = receive.recv()?;
    let terminal = openpty(None, None)?;
    let tell = [
        Source::new(pair()?, F_OWNER_PID, own, 0, 0)?.asynchronous()?,
        Source::new(pair()?, F_OWNER_TID, own, CHOSEN, 0)?.asynchronous()?,
        Source::new(pair()?, F_OWNER_PGRP, getpgrp().as_raw(), 0, 0)?.asynchronous()?,
        Source::new(pipe2(OFlag::O_CLOEXEC)?, F_OWNER_PID, own, CHOSEN, 0)?.asynchronous()?,
        Source::new((terminal.slave, terminal.master), F_OWNER_PID, own, CHOSEN, 0)?.asynchronous()?,
    ];
    let mut silent = vec![
        Source::new(pair()?, F_OWNER_TID, thread, 0, 0)?.asynchronous()?,
        Source::new(pair()?, F_OWNER_PID, i32::try_from(child.id())?, 0, USER)?,
        Source::new(pipe2(OFlag::O_CLOEXEC)?, F_OWNER_PID, i32::try_from(ended.id())?, 0, 0)?.asynchronous()?,
    ];
    ended.wait()?;
    if let Some(last) = silent.last_mut() {
        last.owner.id = 0;
    }
    loop {
        for source in tell.iter().chain(&silent) {
            source.check()?;
        }
        for source in &tell {
            source.tell(&told)?;
            told.nothing()?;
        }
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

fn main() -> ExitCode {
    victim::main(run)
}

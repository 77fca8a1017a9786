//! Terminals in every state: a session with jobs on one, bytes on their way in both directions, lines and half lines, one hung up, one
//! closed, one never opened.

use anyhow::{Context, Result, ensure};
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_tests::victim::{self, Stage, wait_until};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::pty::{PtyMaster, Winsize, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, fstat};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpgid, getpid, getsid, pause, read, setpgid, setsid, tcgetpgrp, tcsetpgrp, write};
use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

const RAW: OFlag = OFlag::O_RDWR.union(OFlag::O_NOCTTY);

fn new_master() -> Result<PtyMaster> {
    let master = posix_openpt(RAW | OFlag::O_NONBLOCK)?;
    grantpt(&master)?;
    Ok(master)
}

fn slave_of(master: &PtyMaster) -> Result<OwnedFd> {
    unlockpt(master)?;
    Ok(open(ptsname_r(master)?.as_str(), RAW | OFlag::O_NONBLOCK, Mode::empty())?)
}

struct Pair {
    master: PtyMaster,
    slave: OwnedFd,
}

impl Pair {
    fn new(edit: impl FnOnce(&mut Termios)) -> Result<Self> {
        let master = new_master()?;
        let slave = slave_of(&master)?;
        let mut settings = tcgetattr(&slave)?;
        edit(&mut settings);
        tcsetattr(&slave, SetArg::TCSANOW, &settings)?;
        Ok(Pair { master, slave })
    }

    fn put(&self, bytes: &[u8]) -> Result<()> {
        ensure!(write(&self.master, bytes)? == bytes.len(), "the terminal took less");
        Ok(())
    }
}

/// Reads until this has come, and nothing else.
fn expect(from: impl AsFd, expected: &[u8], what: &str) -> Result<()> {
    let mut got = Vec::new();
    wait_until(what, || {
        let mut buffer = [0; 8192];
        while let Ok(length @ 1..) = read(&from, &mut buffer) {
            got.extend_from_slice(&buffer[..length]);
        }
        got.len() >= expected.len()
    })
    .with_context(|| format!("{got:?} was read"))?;
    ensure!(got == expected, "{what}: {:?} was read", String::from_utf8_lossy(&got));
    nothing(from, what)
}

fn nothing(from: impl AsFd, what: &str) -> Result<()> {
    ensure!(read(from, &mut [0; 16]) == Err(Errno::EAGAIN), "{what}: there is more to read");
    Ok(())
}

fn fork(child: impl FnOnce() -> Result<Infallible>) -> Result<Pid> {
    match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() })? {
        Forked::Parent { child, .. } => Ok(child),
        Forked::Child => match child() {
            Err(_) => exit_now(1),
            Ok(never) => match never {},
        },
    }
}

fn wait_for_ever() -> ! {
    loop {
        pause();
    }
}

/// A session of its own on a terminal, with a group in front; both wait for ever.
fn session(pair: &Pair) -> Result<(Pid, Pid)> {
    let (told, tell) = nix::unistd::pipe()?;
    let leader = fork(|| {
        setsid()?;
        // Whoever started us may ignore what interrupts.
        crfs_sys::signal::reset_all()?;
        crfs_sys::tty::make_controlling(pair.slave.as_fd())?;
        let terminal = open("/dev/tty", RAW, Mode::empty())?;
        let front = fork(|| {
            setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
            wait_for_ever()
        })?;
        // As shells do: parent and child cannot know who comes first.
        setpgid(front, front)?;
        tcsetpgrp(&terminal, front)?;
        write(&tell, &front.as_raw().to_ne_bytes())?;
        wait_for_ever()
    })?;
    let mut front = [0; 4];
    ensure!(read(&told, &mut front)? == 4, "the session did not start");
    Ok((leader, Pid::from_raw(i32::from_ne_bytes(front))))
}

fn run(stage: &mut Stage) -> Result<()> {
    let jobs = Pair::new(|settings| {
        settings.local_flags.remove(LocalFlags::ECHO);
        settings.control_chars[SpecialCharacterIndices::VINTR as usize] = 7;
    })?;
    let (leader, front) = session(&jobs)?;
    let size = Winsize { ws_row: 37, ws_col: 121, ws_xpixel: 640, ws_ypixel: 480 };
    crfs_sys::tty::set_window_size(jobs.slave.as_fd(), &size)?;

    // In both directions, raw, and more than a line discipline holds.
    let raw = Pair::new(cfmakeraw)?;
    let long: Vec<u8> = (0..6000u32).map(|n| u8::try_from(n % 251).unwrap_or(0)).collect();
    raw.put(&long)?;
    ensure!(write(&raw.slave, b"to the master\n")? == 14, "the terminal took less");

    // Lines: edited, with an end of file, a quoted newline, and the beginning of one more.
    let lines = Pair::new(|settings| settings.local_flags.remove(LocalFlags::ECHO))?;
    lines.put(b"onx\x7fe\nhal\x16\nf\x04\x04rest")?;

    crfs_sys::tty::set_packet_mode(lines.master.as_fd(), true)?;
    crfs_sys::tty::make_exclusive(raw.slave.as_fd())?;
    let hung_up = {
        let pair = Pair::new(|_| {})?;
        pair.slave
    };
    let closed = new_master()?;
    drop(slave_of(&closed)?);
    let unopened = new_master()?;
    let again =
        open(ptsname_r(&lines.master)?.as_str(), OFlag::O_RDONLY | OFlag::O_NOCTTY | OFlag::O_NONBLOCK, Mode::empty())?;
    let names = [&jobs.master, &raw.master, &lines.master, &closed, &unopened].map(ptsname_r);
    loop {
        let settings = tcgetattr(&jobs.master)?;
        ensure!(!settings.local_flags.contains(LocalFlags::ECHO), "ECHO is back");
        ensure!(settings.control_chars[SpecialCharacterIndices::VINTR as usize] == 7, "VINTR is another");
        let now = crfs_sys::tty::window_size(jobs.slave.as_fd())?;
        ensure!((now.ws_row, now.ws_col, now.ws_xpixel, now.ws_ypixel) == (37, 121, 640, 480), "the size is another");
        ensure!(tcgetpgrp(&jobs.master)? == front, "the foreground group is another");
        ensure!((getsid(Some(front))?, getpgid(Some(front))?) == (leader, front), "the session is another");
        ensure!(getpgid(Some(getpid()))? != front, "the groups are mixed up");
        ensure!(crfs_sys::tty::is_packet_mode(lines.master.as_fd())?, "packet mode is gone");
        ensure!(read(&hung_up, &mut [0; 1]) == Ok(0), "the hung-up terminal does not read as ended");
        ensure!(write(&hung_up, b"x") == Err(Errno::EIO), "the hung-up terminal can be written to");
        ensure!(read(&closed, &mut [0; 1]) == Err(Errno::EIO), "nobody has the slave, and that is not told");
        nothing(&unopened, "the terminal that was never opened")?;
        ensure!(open(ptsname_r(&unopened)?.as_str(), RAW, Mode::empty()).is_err(), "the lock is gone");
        ensure!(
            fstat(&again)?.st_rdev == fstat(&lines.slave)?.st_rdev,
            "the second description is of another terminal"
        );
        let numbers = [&jobs.master, &raw.master, &lines.master, &closed, &unopened].map(ptsname_r);
        ensure!(numbers == names, "the terminals have other names");
        if !stage.end_round_and_rest()? {
            break;
        }
    }
    expect(&raw.slave, &long, "what was written to the raw terminal")?;
    expect(&raw.master, b"to the master\n", "what was written to its master")?;
    let line = || -> Result<Vec<u8>> {
        let mut buffer = [0; 64];
        let length = read(&lines.slave, &mut buffer)?;
        Ok(buffer[..length].to_vec())
    };
    ensure!(line()? == b"one\n", "the first line is another");
    ensure!(line()? == b"hal\nf", "the line that ended without a newline is another");
    ensure!(line()? == b"", "the end of file is gone");
    nothing(&lines.slave, "the beginning of a line")?;
    lines.put(b"ed\n")?;
    expect(&again, b"rested\n", "the line that was begun before")?;
    // ^G is what interrupts here, and whoever is in front gets it.
    jobs.put(&[7])?;
    wait_until("the group in front is interrupted", || kill(front, None).is_err() || is_zombie(front))?;
    kill(leader, Signal::SIGKILL)?;
    waitpid(leader, None)?;
    Ok(())
}

fn is_zombie(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

fn main() -> ExitCode {
    victim::main(run)
}

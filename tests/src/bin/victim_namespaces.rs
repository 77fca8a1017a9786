//! Descriptors of namespaces: each that the program is in, opened through /proc/self/ns, and one of them as a mere place as well.

use anyhow::{Context, Result, ensure};
use crfs_tests::victim::{self, Stage};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{FileStat, Mode, fstat, stat};
use nix::unistd::gethostname;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

/// The links of /proc/PID/ns (`fs/proc/namespaces.c`, v6.18).
const NAMES: [&str; 10] =
    ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time", "time_for_children", "user", "uts"];

fn opened(name: &str, flags: OFlag) -> Result<OwnedFd> {
    open(format!("/proc/self/ns/{name}").as_str(), flags, Mode::empty()).with_context(|| format!("opening {name}"))
}

/// That this is the namespace of that name that the program is in.
fn check(fd: impl AsFd, name: &str) -> Result<()> {
    let number = |found: FileStat| (found.st_dev, found.st_ino);
    let own = format!("/proc/self/ns/{name}");
    let (held, own) = victim::steady(|| Ok((number(fstat(&fd)?), number(stat(own.as_str())?))))?;
    ensure!(held == own, "{name} is another namespace");
    Ok(())
}

fn run(stage: &mut Stage) -> Result<()> {
    let held = NAMES.iter().map(|name| Ok((opened(name, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?, *name)));
    let held: Vec<(OwnedFd, &str)> = held.collect::<Result<_>>()?;
    let place = opened("net", OFlag::O_PATH)?;
    let name = gethostname()?;
    loop {
        for (fd, name) in &held {
            check(fd, name)?;
            let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
            ensure!(flags.contains(OFlag::O_NONBLOCK), "the flags of {name} are {flags:?}");
        }
        check(&place, "net")?;
        for (fd, name) in held.iter().filter(|(_, name)| ["ipc", "net", "uts"].contains(name)) {
            setns(fd, CloneFlags::empty()).with_context(|| format!("entering {name}"))?;
        }
        ensure!(gethostname()? == name, "it is called {:?} and not {name:?}", gethostname()?);
        if !stage.end_round_and_rest()? {
            return Ok(());
        }
    }
}

fn main() -> ExitCode {
    victim::main(run)
}

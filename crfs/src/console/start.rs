//! Making a console, and starting its holder.

use super::{ARGV0, SCROLLBACK};
use crate::failure::{Doing, Failure, Kind};
use crate::registry::Container;
use crfs_sys::tty;
use libc::winsize;
use nix::fcntl::{OFlag, open as open_path};
use nix::sys::stat::Mode;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Opens a pair in the calling process's devpts, and takes the slave as its controlling terminal: in a session leader that has none.
/// Master and slave.
///
/// # Errors
/// Of open(2) and ioctl(2): `ENOENT` where there is no /dev/ptmx or /dev/pts.
pub fn open(size: &winsize) -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = open_path("/dev/ptmx", flags, Mode::empty())?;
    tty::set_lock(master.as_fd(), false)?;
    tty::set_window_size(master.as_fd(), size)?;
    let slave = format!("/dev/pts/{}", tty::number(master.as_fd())?);
    let slave = open_path(slave.as_str(), flags, Mode::empty())?;
    tty::make_controlling(slave.as_fd())?;
    Ok((master, slave))
}

/// Starts the holder of a master, and returns when it can be attached to. `first` is the container's first process, with whose
/// end the holder ends; `shown` is what an earlier console showed last.
///
/// # Errors
/// When it cannot be started. The master is closed then, and the container's terminal hung up.
pub fn start(container: &Container, master: OwnedFd, first: i32, shown: &[u8]) -> Result<(), Failure> {
    let doing = || format!("{}: starting the holder of its console", container.name());
    let path = container.dir().join(SCROLLBACK);
    fs::write(&path, shown).doing(|| format!("{}: writing", path.display()))?;
    let mut child = Command::new("/proc/self/exe")
        .arg0(ARGV0)
        .args([container.name(), &first.to_string()])
        .stdin(master)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .doing(doing)?;
    let mut said = String::new();
    // It closes its output when it listens; what it says before that is why it does not.
    let read = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut said));
    read.doing(doing)?;
    if said == "+" {
        return Ok(());
    }
    let _ = child.kill();
    // Reaped: whoever started it may live long.
    let _ = child.wait();
    Err(Failure::new(Kind::System, format!("{}: {said}", doing())))
}

//! From the records of a terminal to a pair with all its descriptions.

use super::{feed, slave_path};
use crate::failure::{Doing, Failure, Kind};
use crate::resource::descriptor::reopen;
use crate::resource::mount::restore::is_of_a_terminal;
use crfs_sys::clone::{CloneArgs, Forked, exit_now, fork_into};
use crfs_sys::{rights, tty};
use image_format::files::{File, OpenFlags};
use image_format::layout::{file_entry, tty_file};
use image_format::tty::{Flow, Pty, SlaveState, Termios, Tty, TtySide};
use image_format::{Bytes, FileId, Image};
use libc::termios2;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::wait::waitpid;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;

/// Read and write, as terminals are opened where no record says how.
const BOTH: OpenFlags = OpenFlags::O_RDWR;
const ICANON: u32 = libc::ICANON;
/// The stop character while output is stopped by it.
const STOP: u8 = 0x13;

/// A description in an image.
#[derive(Clone, Copy, Debug)]
pub(in crate::resource) struct End<'a> {
    /// Its entry.
    pub(in crate::resource) id: FileId,
    /// Flags.
    pub(in crate::resource) file: &'a File,
    /// What it is.
    pub(in crate::resource) tty: &'a Tty,
}

/// What is kept open of the terminals until the container stands.
#[derive(Debug, Default)]
pub struct Terminals {
    /// By number, until every session has its controlling terminal.
    slaves: BTreeMap<u32, OwnedFd>,
    /// The master of the console, and the last it showed.
    console: Option<(OwnedFd, Vec<u8>)>,
}

impl Terminals {
    /// The slave of a terminal.
    ///
    /// # Errors
    /// When the image has no such terminal, which its check would have told.
    pub fn slave(&self, number: u32) -> Result<BorrowedFd<'_>, Failure> {
        let missing = || Failure::new(Kind::BadImage, format!("{}: was not opened", tty_file(number)));
        self.slaves.get(&number).map(AsFd::as_fd).ok_or_else(missing)
    }

    /// The master of the console, for its holder, and the last it showed.
    pub fn take_console(&mut self) -> Option<(OwnedFd, Vec<u8>)> {
        self.console.take()
    }
}

/// Makes every pair of a container whose devpts is still empty, and opens all descriptions.
///
/// # Errors
/// [`Kind::Incompatible`] where there are not enough terminals, or the container has no /dev/pts; [`Kind::BadImage`].
pub(in crate::resource) fn restore(
    ends: &[End<'_>],
    image: &Image,
    root: BorrowedFd<'_>,
) -> Result<(Vec<(FileId, OwnedFd)>, Terminals), Failure> {
    let ttys = &image.ttys;
    let mut opened = Vec::new();
    let mut terminals = Terminals::default();
    let numbers = ends.iter().map(|end| end.tty.number).chain(ttys.keys().copied());
    let Some(highest) = numbers.max() else { return Ok((opened, terminals)) };
    // A devpts gives the lowest free number: those that nobody wants are taken, and given back at the end.
    let mut spare = Vec::new();
    for number in 0..=highest {
        let of_this = || ends.iter().filter(move |end| end.tty.number == number);
        let end = of_this().find(|end| end.tty.side == TtySide::Master);
        let master = open_master(number, end, root)?;
        if of_this().next().is_some() || ttys.contains_key(&number) {
            tty::set_lock(master.as_fd(), false).doing(|| format!("{}: unlocking it", tty_file(number)))?;
        }
        let hung_up: Vec<_> = of_this().filter(|end| end.tty.hung_up).collect();
        for end in &hung_up {
            opened.push((end.id, open_slave(end, image, root)?));
        }
        let Some(pty) = ttys.get(&number) else {
            // Hangs them up, if there are any.
            spare.push(master);
            continue;
        };
        let pair = Pair { number, pty, master: master.as_fd(), root };
        if !hung_up.is_empty() {
            tty::hang_up(pair.open_slave()?.as_fd()).doing(|| pair.doing("hanging it up"))?;
        }
        let slave = pair.set_up()?;
        for end in of_this().filter(|end| end.tty.side != TtySide::Master && !end.tty.hung_up) {
            opened.push((end.id, open_slave(end, image, root)?));
        }
        pair.close_to_others(slave.as_ref())?;
        if let Some(slave) = slave {
            terminals.slaves.insert(number, slave);
        }
        match (end, &pty.console) {
            (Some(end), _) => opened.push((end.id, master)),
            (None, Some(console)) => terminals.console = Some((master, console.shown.0.clone())),
            // The check of the image has refused it.
            (None, None) => spare.push(master),
        }
    }
    Ok((opened, terminals))
}

fn open_master(number: u32, end: Option<&End<'_>>, root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let object = end.map_or_else(|| tty_file(number), |end| file_entry(end.id));
    // Beside /dev/pts a link may stand in the place of the device.
    let default = Bytes(b"/dev/pts/ptmx".to_vec());
    let (path, flags) = end.map_or((&default, BOTH), |end| (&end.tty.path, end.file.flags));
    let master: OwnedFd = reopen::open(root, path, flags, (libc::S_IFCHR, "terminal"), &object)?.into();
    match tty::number(master.as_fd()).doing(|| format!("{object}: asking for the number of the terminal"))? {
        got if got == number => Ok(master),
        got => Err(Failure::new(
            Kind::Incompatible,
            format!("{object}: {path} gives terminal {got} here, where {number} was expected; is it another devpts?"),
        )),
    }
}

fn open_slave(end: &End<'_>, image: &Image, root: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let object = file_entry(end.id);
    let slave = |path, flags| reopen::open(root, path, flags, (libc::S_IFCHR, "terminal"), &object).map(OwnedFd::from);
    match end.tty.side {
        TtySide::Controlling => {
            let node = slave_path(end.tty.number);
            let terminal = slave(&node, BOTH)?;
            as_controlling(&terminal, || slave(&end.tty.path, end.file.flags))
                .map_err(|failure| failure.within(object.clone()))
        }
        // /dev/console of containers that others made shows it when it is there, which is now.
        _ if image.mounts.iter().any(|mount| is_of_a_terminal(mount) && mount.path == end.tty.path) => {
            slave(&slave_path(end.tty.number), end.file.flags)
        }
        TtySide::Master | TtySide::Slave => slave(&end.tty.path, end.file.flags),
    }
}

/// Opens something in a child that has `terminal` as its controlling terminal: /dev/tty is whatever terminal that is.
fn as_controlling(terminal: &OwnedFd, open: impl FnOnce() -> Result<OwnedFd, Failure>) -> Result<OwnedFd, Failure> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .doing(|| "making a socket pair")?;
    let child =
        match fork_into(&CloneArgs { exit_signal: libc::SIGCHLD, ..CloneArgs::default() }).doing(|| "forking")? {
            Forked::Parent { child, .. } => child,
            Forked::Child => {
                let result = nix::unistd::setsid()
                    .and_then(|_| tty::make_controlling(terminal.as_fd()))
                    .doing(|| "taking it as controlling terminal")
                    .and_then(|()| open());
                // Whoever hears nothing knows that it failed.
                let _ = match result {
                    Ok(fd) => rights::send(theirs.as_fd(), b"+", Some(fd.as_fd())),
                    Err(failure) => rights::send(theirs.as_fd(), failure.to_string().as_bytes(), None),
                };
                exit_now(0)
            }
        };
    drop(theirs);
    let mut text = [0; 1024];
    let received = rights::receive(ours.as_fd(), &mut text);
    waitpid(child, None).doing(|| "waiting for a child")?;
    match received.doing(|| "hearing from a child")? {
        (_, Some(fd)) => Ok(fd),
        (length, None) => Err(Failure::new(Kind::Incompatible, String::from_utf8_lossy(&text[..length]).into_owned())),
    }
}

/// A pair in the making.
struct Pair<'a> {
    number: u32,
    pty: &'a Pty,
    master: BorrowedFd<'a>,
    root: BorrowedFd<'a>,
}

impl Pair<'_> {
    fn doing(&self, what: &str) -> String {
        format!("{}: {what}", tty_file(self.number))
    }

    fn open_slave(&self) -> Result<OwnedFd, Failure> {
        let object = tty_file(self.number);
        let opened = reopen::open(self.root, &slave_path(self.number), BOTH, (libc::S_IFCHR, "terminal"), &object)?;
        Ok(opened.into())
    }

    /// Owner, queues, settings, size. The slave, unless it was never opened.
    fn set_up(&self) -> Result<Option<OwnedFd>, Failure> {
        let Pty { uid, gid, mode, .. } = *self.pty;
        let node = reopen::look(self.root, &slave_path(self.number)).doing(|| self.doing("finding its node"))?;
        // The node is only held by O_PATH, and the link in /proc leads to it.
        let path = format!("/proc/self/fd/{}", node.as_raw_fd());
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).doing(|| self.doing("setting its owner"))?;
        let mode = std::fs::Permissions::from_mode(mode.0);
        std::fs::set_permissions(&path, mode).doing(|| self.doing("setting its permissions"))?;
        let settings = self.settings()?;
        let slave = match self.pty.slave {
            SlaveState::Unopened => None,
            SlaveState::Open | SlaveState::Closed => Some(self.open_slave()?),
        };
        if let Some(slave) = &slave {
            self.fill(slave, &settings).doing(|| self.doing("filling its queues"))?;
            self.stop(slave, &settings).doing(|| self.doing("stopping its output"))?;
        }
        tty::set_settings(self.master, &settings).doing(|| self.doing("its settings"))?;
        let size = libc::winsize {
            ws_row: self.pty.size.rows,
            ws_col: self.pty.size.columns,
            ws_xpixel: self.pty.size.x_pixels,
            ws_ypixel: self.pty.size.y_pixels,
        };
        tty::set_window_size(self.master, &size).doing(|| self.doing("its size"))?;
        // Under the settings it will be read with.
        write_now(self.master, &self.pty.input.behind.0).doing(|| self.doing("writing what waits for the slave"))?;
        Ok(slave)
    }

    fn settings(&self) -> Result<termios2, Failure> {
        let Termios { iflag, oflag, cflag, lflag, line, cc, ispeed, ospeed } = &self.pty.termios;
        let bad = |_| Failure::new(Kind::BadImage, self.doing("termios.cc: not 19 control characters"));
        Ok(termios2 {
            c_iflag: iflag.0,
            c_oflag: oflag.0,
            c_cflag: cflag.0,
            c_lflag: lflag.0,
            c_line: *line,
            c_cc: cc.0.as_slice().try_into().map_err(bad)?,
            c_ispeed: *ispeed,
            c_ospeed: *ospeed,
        })
    }

    /// Both queues. The settings are others afterwards, with nothing done to what is written.
    fn fill(&self, slave: &OwnedFd, settings: &termios2) -> nix::Result<()> {
        let Pty { input, output, .. } = self.pty;
        if settings.c_lflag & ICANON != 0 {
            feed::canonical(slave.as_fd(), input, settings)?;
        } else {
            tty::set_settings(slave.as_fd(), &feed::quiet(settings, 0, &[]))?;
            input.bytes.0.iter().try_for_each(|&byte| tty::feed(slave.as_fd(), byte))?;
        }
        // The master's own discipline takes everything as it is.
        output.bytes.0.iter().try_for_each(|&byte| tty::feed(self.master, byte))?;
        write_now(slave.as_fd(), &output.behind.0)
    }

    fn stop(&self, slave: &OwnedFd, settings: &termios2) -> nix::Result<()> {
        match self.pty.flow {
            Flow::On => Ok(()),
            Flow::StoppedByCall => tty::stop_output(slave.as_fd()),
            Flow::StoppedByKey => {
                let mut quiet = feed::quiet(settings, settings.c_lflag & ICANON, &[(libc::VSTOP, STOP)]);
                quiet.c_iflag = libc::IXON;
                tty::set_settings(slave.as_fd(), &quiet)?;
                tty::feed(slave.as_fd(), STOP)
            }
        }
    }

    /// What would be in the way of opening it: last.
    fn close_to_others(&self, slave: Option<&OwnedFd>) -> Result<(), Failure> {
        tty::set_packet_mode(self.master, self.pty.packet).doing(|| self.doing("packet mode"))?;
        if self.pty.master_exclusive {
            tty::make_exclusive(self.master).doing(|| self.doing("making its master exclusive"))?;
        }
        if let Some(slave) = slave.filter(|_| self.pty.exclusive) {
            tty::make_exclusive(slave.as_fd()).doing(|| self.doing("making it exclusive"))?;
        }
        tty::set_lock(self.master, self.pty.locked).doing(|| self.doing("its lock"))
    }
}

/// Writes all at once or fails: nobody reads yet, and a full buffer would keep us for ever.
fn write_now(to: BorrowedFd<'_>, bytes: &[u8]) -> nix::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let flags = OFlag::from_bits_retain(fcntl(to, FcntlArg::F_GETFL)?);
    fcntl(to, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    let written = nix::unistd::write(to, bytes);
    fcntl(to, FcntlArg::F_SETFL(flags))?;
    if written? == bytes.len() { Ok(()) } else { Err(nix::errno::Errno::EAGAIN) }
}

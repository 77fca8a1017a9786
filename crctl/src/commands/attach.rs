//! `crctl attach`, and what `crctl run -it` does once the program runs: the user's terminal is joined to the container's.

use crate::output::{print_bytes, tell};
use anyhow::{Context, Result};
use crfs::console::{Client, Heard, terminal_size};
use crfs::registry::Registry;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::read;
use std::io::{Stdin, stdin};
use std::os::fd::AsFd;

/// The first key of those that detach: ^P.
const LEADER: u8 = 0x10;
/// The second: ^Q.
const DETACH: u8 = 0x11;
/// The first key is kept back for so long, and then it is meant for the program.
const LEADER_MS: u16 = 500;
const PART: usize = 4096;

/// Joins the terminal until the container ends or the user detaches. The exit code: the program's own, or 0.
pub(super) fn attach(registry: &Registry, name: &str) -> Result<u8> {
    let input = stdin();
    let client = Client::attach(&registry.container(name)?, terminal_size(input.as_fd()).as_ref())?;
    let ending = {
        let raw = Raw::enter(&input)?;
        let is_terminal = raw.0.is_some();
        Session { client, input: &input, is_terminal, keys: Keys::default(), pending: Vec::new(), typing: true }
            .run()?
    };
    match ending {
        Ending::Detached => {
            tell(&format!("{name}: detached; `crctl attach {name}` comes back"));
            Ok(0)
        }
        Ending::Exited(status) => Ok(exit_code(status)),
        Ending::Unknown => {
            tell(&format!("{name}: it has ended, and its exit status is not known"));
            Ok(1)
        }
    }
}

/// As a shell tells it.
fn exit_code(status: i32) -> u8 {
    let code = if status & 0x7f == 0 { status >> 8 } else { 128 + (status & 0x7f) };
    u8::try_from(code & 0xff).unwrap_or(1)
}

enum Ending {
    Detached,
    /// With this wait(2) status.
    Exited(i32),
    Unknown,
}

/// The user's terminal passes every key on while this lives.
struct Raw<'a>(Option<(&'a Stdin, Termios)>);

impl<'a> Raw<'a> {
    /// Where the input is no terminal there is nothing to do.
    fn enter(input: &'a Stdin) -> Result<Self> {
        let before = match tcgetattr(input) {
            Err(Errno::ENOTTY) => return Ok(Raw(None)),
            other => other.context("standard input: asking for its settings")?,
        };
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(input, SetArg::TCSANOW, &raw).context("standard input: setting it to raw mode")?;
        Ok(Raw(Some((input, before))))
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        if let Some((input, before)) = &self.0 {
            // A terminal that is gone needs no settings.
            let _ = tcsetattr(input, SetArg::TCSADRAIN, before);
        }
    }
}

struct Session<'a> {
    client: Client,
    input: &'a Stdin,
    is_terminal: bool,
    keys: Keys,
    /// Typed, and not yet taken by the console.
    pending: Vec<u8>,
    /// Until the input ends.
    typing: bool,
}

impl Session<'_> {
    fn run(&mut self) -> Result<Ending> {
        let signals = catch_signals().context("catching signals")?;
        loop {
            let typing = self.typing && self.pending.is_empty();
            let mut wanted = PollFlags::POLLIN;
            wanted.set(PollFlags::POLLOUT, !self.pending.is_empty());
            let mut fds =
                vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(self.client.as_fd(), wanted)];
            if typing {
                fds.push(PollFd::new(self.input.as_fd(), PollFlags::POLLIN));
            }
            let timeout = if self.keys.is_held() { PollTimeout::from(LEADER_MS) } else { PollTimeout::NONE };
            let ready = match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => continue,
                other => other.context("waiting")?,
            };
            let any = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
            let (signalled, told, typed) = (any(0), any(1), any(2));
            drop(fds);
            if ready == 0 {
                self.pending.extend(self.keys.release());
            }
            if signalled && self.signalled(&signals)? {
                return Ok(Ending::Detached);
            }
            if told && let Some(ending) = self.hear()? {
                return Ok(ending);
            }
            if typed && self.type_in()? {
                return Ok(Ending::Detached);
            }
            self.send()?;
        }
    }

    /// True: it is to end.
    fn signalled(&self, signals: &SignalFd) -> Result<bool> {
        while let Some(info) = signals.read_signal().context("reading a signal")? {
            if info.ssi_signo != Signal::SIGWINCH as u32 {
                return Ok(true);
            }
            if let Some(size) = terminal_size(self.input.as_fd()) {
                // A console that is gone is told by its end.
                let _ = self.client.resize(&size);
            }
        }
        Ok(false)
    }

    fn hear(&self) -> Result<Option<Ending>> {
        match self.client.hear().context("hearing from the console")? {
            Heard::Output(bytes) => {
                let wanted = print_bytes(&bytes)?;
                Ok((!wanted).then_some(Ending::Detached))
            }
            Heard::End(status) => Ok(Some(status.map_or(Ending::Unknown, Ending::Exited))),
            Heard::Lost => Ok(Some(Ending::Unknown)),
        }
    }

    /// True: the user detaches, or their terminal is gone.
    fn type_in(&mut self) -> Result<bool> {
        let mut part = [0; PART];
        match read(self.input, &mut part) {
            // In raw mode a terminal has no end but that it was hung up.
            Ok(0) | Err(Errno::EIO) if self.is_terminal => return Ok(true),
            Ok(0) => self.typing = false,
            Ok(length) => {
                let (bytes, detached) = self.keys.feed(&part[..length]);
                self.pending.extend(bytes);
                return Ok(detached);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("standard input: reading"),
        }
        Ok(false)
    }

    fn send(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        match self.client.input(&self.pending) {
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => self.pending.clear(),
            Err(Errno::EAGAIN) => {}
            Err(errno) => return Err(errno).context("typing"),
        }
        Ok(())
    }
}

fn catch_signals() -> nix::Result<SignalFd> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGWINCH, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        set.add(signal);
    }
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
}

/// Looks for the keys that detach.
#[derive(Debug, Default)]
struct Keys {
    held: bool,
}

impl Keys {
    fn is_held(&self) -> bool {
        self.held
    }

    /// The first key, after nothing followed it.
    fn release(&mut self) -> Option<u8> {
        std::mem::take(&mut self.held).then_some(LEADER)
    }

    /// What is to be passed on, and whether the user detached.
    fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if self.held && byte == DETACH {
                return (passed, true);
            }
            passed.extend(self.release());
            if byte == LEADER {
                self.held = true;
            } else {
                passed.push(byte);
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_keys_detach_also_in_two_reads_and_alone_are_passed_on() {
        let mut keys = Keys::default();
        assert_eq!(keys.feed(b"ab\x10c\x11"), (b"ab\x10c\x11".to_vec(), false));
        assert_eq!(keys.feed(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert!(keys.is_held());
        assert_eq!(keys.feed(b"\x11x"), (vec![], true));
        let mut keys = Keys::default();
        assert_eq!(keys.feed(b"x\x10"), (b"x".to_vec(), false));
        assert_eq!((keys.release(), keys.release()), (Some(LEADER), None));
    }

    #[test]
    fn the_exit_code_is_a_shells() {
        assert_eq!([0, 7 << 8, 9, 0x80 | 11].map(exit_code), [0, 7, 137, 139]);
    }
}

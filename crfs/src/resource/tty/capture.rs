//! From the descriptions of a terminal to its records.

use super::DEVPTS;
use crate::failure::{Doing, Failure};
use crate::resource::descriptor::place::OpenPlace;
use crate::resource::descriptor::refused::{Refusal, device};
use crate::resource::descriptor::seen::Seen;
use crfs_kstate::{Error, KernelState, PtyQueue, PtySide, Task};
use crfs_sys::tty;
use image_format::tty::{Console, Flow, Pty, SlaveState, Termios, Tty, TtyQueue, TtySide, WindowSize};
use image_format::{Blob, Bytes, Octal};
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// How often a queue that changes is looked at again.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// What a description of a terminal is.
#[derive(Clone, Debug)]
pub(in crate::resource) struct Side {
    /// Its record.
    pub(in crate::resource) record: Tty,
    own: PtySide,
    other: PtySide,
}

/// Which side a device is, by its number (include/uapi/linux/major.h, v6.18). None for what is no pseudo-terminal.
fn side(seen: &Seen) -> Option<TtySide> {
    match device(seen) {
        (5, 2) => Some(TtySide::Master),
        (136..=143, _) => Some(TtySide::Slave),
        (5, 0) => Some(TtySide::Controlling),
        _ => None,
    }
}

/// Whether this is a terminal that this module looks at.
pub(in crate::resource) fn is_tty(seen: &Seen) -> bool {
    seen.file_type() == libc::S_IFCHR && !seen.is_path() && side(seen).is_some()
}

fn outside(seen: &Seen) -> Refusal {
    Refusal::new(
        format!("terminal {} lies outside the container", seen.name()),
        "Start the program with `crctl run -t`, which gives it a terminal of its own, or with its output redirected.",
    )
}

/// What can be told while its processes run: whether a slave stands in the container's own devpts.
pub(in crate::resource) fn check(seen: &Seen, place: &OpenPlace) -> Option<Refusal> {
    let is_slave = side(seen) == Some(TtySide::Slave);
    (is_slave && place.device(DEVPTS) != Some(seen.metadata.dev())).then(|| outside(seen))
}

/// Looks at a description of frozen processes.
///
/// # Errors
/// When kernel memory is not as expected.
pub(in crate::resource) fn look(
    seen: &Seen,
    place: &OpenPlace,
    state: &KernelState,
    task: &Task,
) -> Result<Result<Side, Refusal>, Failure> {
    let (Some(side), Some(path)) = (side(seen), place.written(seen)) else { return Ok(Err(outside(seen))) };
    let failed = |error: Error| match error {
        Error::FeatureOff { .. } => Ok(Err(Refusal::new(
            format!("terminal {}: what the kernel keeps of it cannot be told: {error}", seen.name()),
            "Run the program without terminals, or on a kernel whose memory layout is known.",
        ))),
        error => Err(error).doing(|| format!("terminal {}: reading kernel state", seen.name())),
    };
    let (own, other) = match state.pty(task, seen.holder.fd) {
        Ok(Some(sides)) => sides,
        Ok(None) => return Ok(Err(outside(seen))),
        Err(error) => return failed(error),
    };
    let hung_up = match duplicate(seen).and_then(|fd| tty::window_size(fd.as_fd())) {
        Ok(_) => false,
        Err(Errno::EIO) => true,
        Err(errno) => return Err(errno).doing(|| format!("terminal {}: asking its size", seen.name())),
    };
    let slave = if side == TtySide::Master { &other } else { &own };
    let ours = match side {
        // The node of one that is hung up may be away.
        TtySide::Slave => Some(seen.metadata.dev()) == place.device(DEVPTS),
        TtySide::Controlling if hung_up => true,
        TtySide::Master | TtySide::Controlling => match state.pty_device(task, slave) {
            Ok(found) => place.device(DEVPTS).map(kernel_number) == Some(u64::from(found)),
            Err(error) => return failed(error),
        },
    };
    if !ours {
        return Ok(Err(outside(seen)));
    }
    let path = path.0.strip_suffix(b" (deleted)").map_or(path.clone(), |path| Bytes(path.to_vec()));
    Ok(Ok(Side { record: Tty { path, number: own.number, side, hung_up }, own, other }))
}

/// A device number as the kernel keeps it.
fn kernel_number(device: u64) -> u64 {
    nix::sys::stat::major(device) << 20 | nix::sys::stat::minor(device)
}

fn duplicate(seen: &Seen) -> nix::Result<OwnedFd> {
    seen.duplicate()
}

/// Captures a pair from all descriptions of it that are not hung up. `shown` is the last that its console has shown, if it is one.
///
/// # Errors
/// When it changes although its processes stand still.
pub(in crate::resource) fn capture(
    sides: &[(&Seen, &Side)],
    place: &OpenPlace,
    shown: Option<&[u8]>,
    state: &KernelState,
    task: &Task,
) -> Result<Result<Pty, Refusal>, Failure> {
    let inside = sides.iter().find(|(_, side)| side.record.side == TtySide::Master);
    let &(seen, Side { own, other, record }) = inside.unwrap_or(&sides[0]);
    let (master, slave) = if inside.is_some() { (own, other) } else { (other, own) };
    if inside.is_none() && shown.is_none() {
        return Ok(Err(Refusal::new(
            format!("terminal {}: the program that shows it is outside the container", seen.name()),
            "Run both in the container, or start it with `crctl run -t`, which gives it a terminal of its own; or freeze with `--external \
             stdio`, if it is a standard stream of the container's first process.",
        )));
    }
    let shown = if inside.is_some() { None } else { shown };
    let doing = |what: &'static str| move || format!("terminal {}: {what}", record.number);
    let fd = duplicate(seen).doing(doing("duplicating it"))?;
    let settings = tty::settings(fd.as_fd()).doing(doing("asking its settings"))?;
    if settings.c_line != 0 {
        return Ok(Err(Refusal::new(
            format!("terminal {} has line discipline {}, which is not carried yet", record.number, settings.c_line),
            "Have the program close it before the freeze.",
        )));
    }
    let size = tty::window_size(fd.as_fd()).doing(doing("asking its size"))?;
    let node = place.look(&super::slave_path(record.number)).doing(doing("looking at its node"))?;
    let queue = |side| settled(state, task, side).doing(doing("reading what is queued"));
    // A console is neither locked nor in packet mode.
    let of_master = |ask: fn(BorrowedFd<'_>) -> nix::Result<bool>| match inside {
        Some(_) => ask(fd.as_fd()).doing(doing("asking its master")),
        None => Ok(false),
    };
    let is_open = sides.iter().any(|(_, side)| side.record.side != TtySide::Master);
    Ok(Ok(Pty {
        slave: match (is_open, master.other_closed()) {
            (true, _) => SlaveState::Open,
            (false, true) => SlaveState::Closed,
            (false, false) => SlaveState::Unopened,
        },
        locked: of_master(tty::is_locked)?,
        packet: of_master(tty::is_packet_mode)?,
        master_exclusive: master.exclusive(),
        exclusive: slave.exclusive(),
        flow: match (slave.stopped, slave.stopped_by_call) {
            (_, true) => Flow::StoppedByCall,
            (true, false) => Flow::StoppedByKey,
            (false, false) => Flow::On,
        },
        uid: node.uid(),
        gid: node.gid(),
        mode: Octal(node.mode() & 0o7777),
        termios: Termios {
            iflag: Octal(settings.c_iflag),
            oflag: Octal(settings.c_oflag),
            cflag: Octal(settings.c_cflag),
            lflag: Octal(settings.c_lflag),
            line: settings.c_line,
            cc: Blob(settings.c_cc.to_vec()),
            ispeed: settings.c_ispeed,
            ospeed: settings.c_ospeed,
        },
        size: WindowSize {
            rows: size.ws_row,
            columns: size.ws_col,
            x_pixels: size.ws_xpixel,
            y_pixels: size.ws_ypixel,
        },
        foreground: None,
        input: queued(queue(slave)?),
        output: queued(queue(master)?),
        console: shown.map(|shown| Console { shown: Blob(shown.to_vec()) }),
    }))
}

/// What is queued once the kernel has come to rest, which moves bytes for a moment after the last task was frozen.
fn settled(state: &KernelState, task: &Task, side: &PtySide) -> Result<PtyQueue, Error> {
    for _ in 0..TRIES {
        match state.pty_queue(task, side) {
            Err(Error::List { .. }) => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
    state.pty_queue(task, side)
}

fn queued(queue: PtyQueue) -> TtyQueue {
    TtyQueue { bytes: Blob(queue.bytes), line_ends: queue.line_ends, behind: Blob(queue.behind) }
}

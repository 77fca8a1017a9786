//! Terminals: the pair behind a descriptor, and what waits to be read at either side.
//!
//! Of what is queued a part lies in the line discipline, edited and echoed already, and what that has not taken yet in a chain of buffers
//! before it. A kernel thread moves bytes from the one to the other; it has come to rest when the tasks have been frozen for a moment.
//!
//! Source: include/linux/tty.h, include/linux/tty_buffer.h, drivers/tty/n_tty.c, drivers/tty/pty.c, v6.18.

use crate::error::Error;
use crate::feature::Feature;
use crate::files;
use crate::paths::Path;
use crate::state::{KernelState, View};
use crate::tasks::{Task, word};

/// `N_TTY_BUF_SIZE`
const DISCIPLINE: usize = 4096;
/// More buffers than the limit of a pseudo-terminal allows: the chain is none.
const MAX_BUFFERS: usize = 4096;
/// More than a buffer holds (`TTY_BUFFER_PAGE` is below, but a single write may get a larger one).
const MAX_BUFFER: u32 = 1 << 20;
// include/linux/tty.h: bits of tty_struct.flags. Those after them got other numbers in 6.16; ioctls tell what they mean.
const OTHER_CLOSED: u64 = 1 << 2;
const EXCLUSIVE: u64 = 1 << 3;

/// One side of a pair of pseudo-terminals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PtySide {
    /// Its identity, as long as it exists.
    pub address: u64,
    /// Its number in its devpts.
    pub number: u32,
    flags: u64,
    /// Output to it is stopped.
    pub stopped: bool,
    /// By tcflow(3).
    pub stopped_by_call: bool,
}

impl PtySide {
    /// The other side was open, and has been closed by all who had it.
    #[must_use]
    pub fn other_closed(&self) -> bool {
        self.flags & OTHER_CLOSED != 0
    }

    /// TIOCEXCL.
    #[must_use]
    pub fn exclusive(&self) -> bool {
        self.flags & EXCLUSIVE != 0
    }
}

/// What waits to be read at one side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PtyQueue {
    /// What the line discipline holds.
    pub bytes: Vec<u8>,
    /// Which of these end a line in canonical mode, counted from 0.
    pub line_ends: Vec<u32>,
    /// What it has not taken yet.
    pub behind: Vec<u8>,
}

/// Bytes, and the places among them that end a line.
type Lines = (Vec<u8>, Vec<u32>);

impl KernelState {
    /// The side of a pair that a descriptor belongs to, and the other side. None for another terminal (a serial line, a console).
    /// The descriptor must be one of a terminal, which its device number tells.
    ///
    /// # Errors
    /// [`Error::NotOpen`], [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`].
    pub fn pty(&self, task: &Task, fd: i32) -> Result<Option<(PtySide, PtySide)>, Error> {
        let view = self.view(Feature::Terminals, task)?;
        let file = files::file(&view, fd)?;
        let tty = view.u64_from(file, &[Path::FilePrivate, Path::TtyFileTty])?;
        // Only pseudo-terminals have another side.
        match view.u64_from(tty, &[Path::TtyLink])? {
            0 => Ok(None),
            other => Ok(Some((side(&view, tty)?, side(&view, other)?))),
        }
    }

    /// The device number of the devpts that a slave stands in: major << 20 | minor. Its master must be open.
    ///
    /// # Errors
    /// As [`KernelState::pty`].
    pub fn pty_device(&self, task: &Task, slave: &PtySide) -> Result<u32, Error> {
        let view = self.view(Feature::Terminals, task)?;
        view.u32_from(slave.address, &[Path::TtyDriverData, Path::DentrySuper, Path::SuperDevice])
    }

    /// What waits to be read at a side.
    ///
    /// # Errors
    /// As [`KernelState::pty`]; [`Error::List`] when it changes meanwhile.
    pub fn pty_queue(&self, task: &Task, side: &PtySide) -> Result<PtyQueue, Error> {
        let view = self.view(Feature::Terminals, task)?;
        let changed = || Error::List { tid: task.tid(), list: "tty_bufhead" };
        let behind = behind(&view, side.address)?.ok_or_else(changed)?;
        let (bytes, line_ends) = discipline(&view, side.address)?.ok_or_else(changed)?;
        // What was moved meanwhile would stand in both.
        if self::behind(&view, side.address)?.as_ref() != Some(&behind) {
            return Err(changed());
        }
        Ok(PtyQueue { bytes, line_ends, behind })
    }
}

fn side(view: &View<'_>, tty: u64) -> Result<PtySide, Error> {
    let bool_at = |path| -> Result<bool, Error> {
        let mut byte = [0];
        view.bytes_from(tty, &[path], &mut byte)?;
        Ok(byte[0] != 0)
    };
    Ok(PtySide {
        address: tty,
        number: view.u32_from(tty, &[Path::TtyIndex])?,
        flags: view.u64_from(tty, &[Path::TtyFlags])?,
        stopped: bool_at(Path::TtyStopped)?,
        stopped_by_call: bool_at(Path::TtyStoppedByCall)?,
    })
}

/// The ring of a line discipline and where its lines end. None when it is no such ring.
fn discipline(view: &View<'_>, tty: u64) -> Result<Option<Lines>, Error> {
    let data = view.u64_from(tty, &[Path::TtyDiscipline])?;
    let counter = |path| view.u64_from(data, &[path]);
    let (head, tail) = (counter(Path::NttyReadHead)?, counter(Path::NttyReadTail)?);
    let Some(length) = usize::try_from(head.wrapping_sub(tail)).ok().filter(|&length| length <= DISCIPLINE) else {
        return Ok(None);
    };
    let (mut ring, mut flags) = ([0; DISCIPLINE], [0; DISCIPLINE / 8]);
    view.bytes_from(data, &[Path::NttyReadBuf], &mut ring)?;
    view.bytes_from(data, &[Path::NttyReadFlags], &mut flags)?;
    let place = |index: usize| (usize::try_from(tail).unwrap_or(0) + index) % DISCIPLINE;
    let is_end = |index: &usize| flags[place(*index) / 8] >> (place(*index) % 8) & 1 != 0;
    let bytes = (0..length).map(|index| ring[place(index)]).collect();
    let ends = (0..length).filter(is_end).filter_map(|index| u32::try_from(index).ok()).collect();
    Ok(Some((bytes, ends)))
}

/// What lies in the chain of buffers. None when it is no such chain.
fn behind(view: &View<'_>, tty: u64) -> Result<Option<Vec<u8>>, Error> {
    let port = view.u64_from(tty, &[Path::TtyPort])?;
    let mut buffer = view.u64_from(port, &[Path::TtyPortHead])?;
    let mut bytes = Vec::new();
    for _ in 0..MAX_BUFFERS {
        if buffer == 0 {
            return Ok(Some(bytes));
        }
        let number = |path| view.u32_from(buffer, &[path]);
        let (taken, there) = (number(Path::TtyBufferRead)?, number(Path::TtyBufferCommit)?);
        let Some(length) = there.checked_sub(taken).filter(|&length| length <= MAX_BUFFER) else { return Ok(None) };
        if length > 0 {
            let mut part = vec![0; length as usize];
            let data = buffer.wrapping_add(view.offset(Path::TtyBufferData)?).wrapping_add(u64::from(taken));
            view.bytes_at(data, Path::TtyBufferData, &mut part)?;
            bytes.append(&mut part);
        }
        let mut next = [0; 8];
        view.bytes_from(buffer, &[Path::TtyBufferNext], &mut next)?;
        buffer = word(&next, 0);
    }
    Ok(None)
}

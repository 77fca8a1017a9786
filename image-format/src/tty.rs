//! Terminals: descriptions of either side of a pseudo-terminal, and `files/tty.N`, what a pair is.

use crate::types::{Blob, Bytes, Octal, Pid};
use serde::{Deserialize, Serialize};

/// An open file description of a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tty {
    /// The path inside the container that it was opened by.
    pub path: Bytes,
    /// The terminal's number in the container's /dev/pts; its state stands in `files/tty.N`.
    pub number: u32,
    /// Which side of the pair this is.
    pub side: TtySide,
    /// Hung up: it reads as ended and cannot be written to.
    pub hung_up: bool,
}

/// How a description belongs to a pair of pseudo-terminals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TtySide {
    /// The side of the terminal emulator: /dev/ptmx.
    Master,
    /// The side of the programs: /dev/pts/N.
    Slave,
    /// The same side, opened as /dev/tty.
    Controlling,
}

/// `files/tty.N`: a pair of pseudo-terminals whose master is open, in the container or as its console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pty {
    /// Whether the other side was ever opened: a master whose slaves were all closed reads as ended.
    pub slave: SlaveState,
    /// The slave cannot be opened yet (TIOCSPTLCK).
    pub locked: bool,
    /// TIOCPKT.
    pub packet: bool,
    /// TIOCEXCL of the master.
    pub master_exclusive: bool,
    /// TIOCEXCL of the slave.
    pub exclusive: bool,
    /// Whether output to the terminal is stopped.
    pub flow: Flow,
    /// Owner of the slave's node.
    pub uid: u32,
    /// Group of the slave's node.
    pub gid: u32,
    /// Permissions of the slave's node.
    pub mode: Octal,
    /// Settings.
    pub termios: Termios,
    /// Size.
    pub size: WindowSize,
    /// The foreground process group of the session whose controlling terminal it is.
    pub foreground: Option<Pid>,
    /// What the slave will read.
    pub input: TtyQueue,
    /// What the master will read.
    pub output: TtyQueue,
    /// It is the container's console: its master is outside, and made anew at restore.
    pub console: Option<Console>,
}

/// What is known of the outside of a console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Console {
    /// The last it showed, for those who look at it after a restore.
    pub shown: Blob,
}

/// What became of the slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlaveState {
    /// Never opened.
    Unopened,
    /// Open.
    Open,
    /// Opened, and closed by all who had it.
    Closed,
}

/// Whether output is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Flow {
    /// It goes on.
    On,
    /// Stopped by the stop character (^S).
    StoppedByKey,
    /// Stopped by tcflow(3).
    StoppedByCall,
}

/// `struct termios2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // the kernel's names (include/uapi/asm-generic/termbits.h, v6.18), one to one
pub struct Termios {
    pub iflag: Octal,
    pub oflag: Octal,
    pub cflag: Octal,
    pub lflag: Octal,
    pub line: u8,
    pub cc: Blob,
    pub ispeed: u32,
    pub ospeed: u32,
}

/// `struct winsize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // ioctl_tty(2), TIOCGWINSZ
pub struct WindowSize {
    pub rows: u16,
    pub columns: u16,
    pub x_pixels: u16,
    pub y_pixels: u16,
}

/// What waits to be read at one side of a pair. It is small (a line discipline keeps 4 KiB), and so it stands here and not in a
/// file of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TtyQueue {
    /// What the line discipline has taken: edited, translated and echoed already.
    pub bytes: Blob,
    /// In canonical mode: the bytes that end a line, counted from 0. A zero byte at such a place is an end of file (^D).
    pub line_ends: Vec<u32>,
    /// What it has not taken yet, as the other side wrote it.
    pub behind: Blob,
}

/// Bytes that a line discipline keeps (`N_TTY_BUF_SIZE` in drivers/tty/n_tty.c, v6.18).
pub const DISCIPLINE_SIZE: usize = 4096;
/// Entries of `c_cc` (`NCCS` in include/uapi/asm-generic/termbits.h, v6.18).
pub const CONTROL_CHARACTERS: usize = 19;
/// Bytes kept of what a console showed.
pub const SHOWN_SIZE: usize = 64 << 10;

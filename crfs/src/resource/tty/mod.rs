//! Terminals: pairs of pseudo-terminals inside the container, their sessions, and what is queued in them.
//!
//! **What it is.** A pair: a master, which a terminal emulator reads and writes, and a slave that programs see as a terminal, with
//! settings, a size, a session and a foreground group. Between them line disciplines edit, echo and queue (pty(7), tty(4)).
//!
//! **Where the kernel keeps it.** `struct tty_struct` for each side, `struct n_tty_data` and `struct tty_bufhead` for what is
//! queued: <https://elixir.bootlin.com/linux/v6.18/source/drivers/tty/pty.c>.
//!
//! **How it is read.** Settings, size and packet mode by ioctls on a duplicate; which descriptions belong together, flags and queues
//! from kernel memory, since reading a queue would empty it. Who has it as controlling terminal is in /proc/PID/stat.
//!
//! **How it is made again.** The container's devpts is fresh, so opening /dev/ptmx gives the numbers in order, and those that
//! are not wanted are closed again. Queued bytes are fed to each side's discipline one by one (TIOCSTI) while nothing is
//! edited or echoed, with the characters that end a line where the record says so; then settings, size and the rest are set. A session
//! leader takes its terminal before it clones its session, whose members inherit it; the foreground group is set when all groups stand.
//! Hung-up descriptions are opened and then hung up as they were.
//!
//! **What is refused.** "Lies outside the container": other terminals than those of the container's own /dev/pts, and those whose
//! master is held outside; other line disciplines.

mod capture;
mod feed;
pub mod inject;
mod relations;
mod restore;

pub(super) use capture::{Side, capture, check, is_tty, look};
pub use relations::{relate, survey};
pub use restore::Terminals;
pub(super) use restore::{End, restore};

use image_format::Bytes;

/// Where a container's terminals stand.
const DEVPTS: &[u8] = b"/dev/pts";

/// The path of a slave.
fn slave_path(number: u32) -> Bytes {
    Bytes([DEVPTS, b"/", number.to_string().as_bytes()].concat())
}

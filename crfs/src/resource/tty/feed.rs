//! Filling a line discipline with what it held: byte by byte, so that nothing of it is edited, echoed or signalled a second time.

use crfs_sys::tty;
use image_format::tty::TtyQueue;
use libc::termios2;
use nix::Result;
use std::os::fd::BorrowedFd;

/// Taken as it is by the discipline: the byte after it.
const LITERAL: u8 = 0x16;
/// Ends a file.
const END_OF_FILE: u8 = 0x04;

/// What is done to bring one byte into a canonical queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Fed as it is.
    Plain(u8),
    /// Fed after [`LITERAL`], so that it means nothing.
    Quoted(u8),
    /// Fed while it is the character that ends a line.
    Ending(u8),
}

/// Fills the queue of a slave in canonical mode. Its settings are others afterwards.
pub(super) fn canonical(slave: BorrowedFd<'_>, queue: &TtyQueue, settings: &termios2) -> Result<()> {
    let usual = quiet(settings, libc::ICANON | libc::IEXTEN, &[(libc::VLNEXT, LITERAL), (libc::VEOF, END_OF_FILE)]);
    tty::set_settings(slave, &usual)?;
    for step in steps(queue) {
        match step {
            Step::Plain(byte) => tty::feed(slave, byte)?,
            Step::Quoted(byte) => {
                tty::feed(slave, LITERAL)?;
                tty::feed(slave, byte)?;
            }
            Step::Ending(byte) => {
                tty::set_settings(slave, &quiet(settings, libc::ICANON, &[(libc::VEOL, byte)]))?;
                tty::feed(slave, byte)?;
                tty::set_settings(slave, &usual)?;
            }
        }
    }
    Ok(())
}

/// Settings under which a discipline takes bytes and does nothing else. Line mode and what is in `characters` are as told.
pub(super) fn quiet(settings: &termios2, lflag: u32, characters: &[(usize, u8)]) -> termios2 {
    let mut quiet = termios2 { c_iflag: 0, c_oflag: 0, c_lflag: lflag, c_cc: [0; 19], ..*settings };
    quiet.c_cc[libc::VMIN] = 1;
    for &(which, byte) in characters {
        quiet.c_cc[which] = byte;
    }
    quiet
}

fn steps(queue: &TtyQueue) -> Vec<Step> {
    let mut ends = queue.line_ends.iter().peekable();
    let step = |(index, &byte): (u32, &u8)| {
        let is_end = ends.next_if_eq(&&index).is_some();
        match (is_end, byte) {
            (true, b'\n') => Step::Plain(byte),
            // What stands for an end of file is a zero byte (`__DISABLED_CHAR`).
            (true, 0) => Step::Plain(END_OF_FILE),
            (true, _) => Step::Ending(byte),
            (false, b'\n' | LITERAL | END_OF_FILE) => Step::Quoted(byte),
            (false, _) => Step::Plain(byte),
        }
    };
    (0..).zip(&queue.bytes.0).map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_format::Blob;

    #[test]
    fn what_means_something_is_quoted_unless_it_ended_a_line() {
        let bytes = b"a\n\0\n\x04\x16;\0".to_vec();
        let queue = TtyQueue { bytes: Blob(bytes), line_ends: vec![1, 2, 6], behind: Blob(vec![]) };
        let expected = [
            Step::Plain(b'a'),
            Step::Plain(b'\n'),
            Step::Plain(END_OF_FILE),
            Step::Quoted(b'\n'),
            Step::Quoted(4),
            Step::Quoted(0x16),
            Step::Ending(b';'),
            Step::Plain(0),
        ];
        assert_eq!(steps(&queue), expected);
    }
}

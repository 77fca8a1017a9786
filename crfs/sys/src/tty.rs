//! Terminals beyond what nix covers: settings as the kernel keeps them, and what only ioctls of pseudo-terminals tell and set.
//!
//! Source: ioctl_tty(2), ioctl_console(2); `include/uapi/asm-generic/ioctls.h` and `termbits.h`, v6.18.

use libc::{termios2, winsize};
use nix::Result;
use std::os::fd::{AsRawFd, BorrowedFd};

mod ioctl {
    use super::{termios2, winsize};
    nix::ioctl_read!(tcgets2, b'T', 0x2a, termios2);
    nix::ioctl_write_ptr!(tcsets2, b'T', 0x2b, termios2);
    nix::ioctl_read!(tiocgptn, b'T', 0x30, libc::c_uint);
    nix::ioctl_write_ptr!(tiocsptlck, b'T', 0x31, libc::c_int);
    nix::ioctl_read!(tiocgptlck, b'T', 0x39, libc::c_int);
    nix::ioctl_read!(tiocgpkt, b'T', 0x38, libc::c_int);
    // These are older than the scheme that puts direction and size into an ioctl's number.
    nix::ioctl_none_bad!(tiocexcl, libc::TIOCEXCL);
    nix::ioctl_write_int_bad!(tiocsctty, libc::TIOCSCTTY);
    nix::ioctl_write_ptr_bad!(tiocsti, libc::TIOCSTI, u8);
    nix::ioctl_read_bad!(tiocgwinsz, libc::TIOCGWINSZ, winsize);
    nix::ioctl_write_ptr_bad!(tiocswinsz, libc::TIOCSWINSZ, winsize);
    nix::ioctl_write_ptr_bad!(tiocpkt, libc::TIOCPKT, libc::c_int);
    nix::ioctl_write_int_bad!(tcxonc, libc::TCXONC);
    nix::ioctl_none_bad!(tiocvhangup, 0x5437);
}

/// The settings of a terminal; asked of a master, those of its slave. `EIO`: it is hung up.
pub fn settings(tty: BorrowedFd<'_>) -> Result<termios2> {
    let mut settings =
        termios2 { c_iflag: 0, c_oflag: 0, c_cflag: 0, c_lflag: 0, c_line: 0, c_cc: [0; 19], c_ispeed: 0, c_ospeed: 0 };
    // SAFETY: the kernel writes one termios2.
    unsafe { ioctl::tcgets2(tty.as_raw_fd(), &raw mut settings) }.map(|_| settings)
}

/// Sets them at once; on a master, those of its slave.
pub fn set_settings(tty: BorrowedFd<'_>, settings: &termios2) -> Result<()> {
    // SAFETY: the kernel reads one termios2.
    unsafe { ioctl::tcsets2(tty.as_raw_fd(), settings) }.map(drop)
}

/// The window size, which both sides of a pair share.
pub fn window_size(tty: BorrowedFd<'_>) -> Result<winsize> {
    let mut size = winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes one winsize.
    unsafe { ioctl::tiocgwinsz(tty.as_raw_fd(), &raw mut size) }.map(|_| size)
}

/// Sets the window size of both sides. Where it changes, the foreground group gets SIGWINCH.
pub fn set_window_size(tty: BorrowedFd<'_>, size: &winsize) -> Result<()> {
    // SAFETY: the kernel reads one winsize.
    unsafe { ioctl::tiocswinsz(tty.as_raw_fd(), size) }.map(drop)
}

/// The number in its devpts of the pair that a master belongs to.
pub fn number(master: BorrowedFd<'_>) -> Result<u32> {
    let mut number = 0;
    // SAFETY: the kernel writes one unsigned int.
    unsafe { ioctl::tiocgptn(master.as_raw_fd(), &raw mut number) }.map(|_| number)
}

/// Whether the slave cannot be opened yet. A new pair is locked.
pub fn is_locked(master: BorrowedFd<'_>) -> Result<bool> {
    let mut locked = 0;
    // SAFETY: the kernel writes one int.
    unsafe { ioctl::tiocgptlck(master.as_raw_fd(), &raw mut locked) }.map(|_| locked != 0)
}

/// Locks or unlocks it.
pub fn set_lock(master: BorrowedFd<'_>, locked: bool) -> Result<()> {
    let locked = libc::c_int::from(locked);
    // SAFETY: the kernel reads one int.
    unsafe { ioctl::tiocsptlck(master.as_raw_fd(), &raw const locked) }.map(drop)
}

/// Whether reads of a master begin with a byte that tells what the slave did.
pub fn is_packet_mode(master: BorrowedFd<'_>) -> Result<bool> {
    let mut mode = 0;
    // SAFETY: the kernel writes one int.
    unsafe { ioctl::tiocgpkt(master.as_raw_fd(), &raw mut mode) }.map(|_| mode != 0)
}

/// Sets packet mode; what was to be told is forgotten.
pub fn set_packet_mode(master: BorrowedFd<'_>, on: bool) -> Result<()> {
    let on = libc::c_int::from(on);
    // SAFETY: the kernel reads one int.
    unsafe { ioctl::tiocpkt(master.as_raw_fd(), &raw const on) }.map(drop)
}

/// Lets nobody without CAP_SYS_ADMIN open this side again.
pub fn make_exclusive(tty: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no argument.
    unsafe { ioctl::tiocexcl(tty.as_raw_fd()) }.map(drop)
}

/// Makes it the controlling terminal of the calling process, a session leader that has none. `EPERM`: it has one, or the
/// terminal is another session's.
pub fn make_controlling(tty: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: a number.
    unsafe { ioctl::tiocsctty(tty.as_raw_fd(), 0) }.map(drop)
}

/// Gives a byte to a side's line discipline as if the other side had written it; it is processed when this returns. Takes
/// CAP_SYS_ADMIN where it is not the caller's controlling terminal.
pub fn feed(tty: BorrowedFd<'_>, byte: u8) -> Result<()> {
    // SAFETY: the kernel reads one byte.
    unsafe { ioctl::tiocsti(tty.as_raw_fd(), &raw const byte) }.map(drop)
}

/// Stops output to a terminal, as tcflow(3) with TCOOFF.
pub fn stop_output(slave: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: a number.
    unsafe { ioctl::tcxonc(slave.as_raw_fd(), libc::TCOOFF) }.map(drop)
}

/// Hangs a terminal up: every description of this side is dead from now on.
pub fn hang_up(tty: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes no argument.
    unsafe { ioctl::tiocvhangup(tty.as_raw_fd()) }.map(drop)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn a_pair_has_a_number_settings_a_size_and_packets() {
        let open = || File::options().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx").unwrap();
        let (master, other) = (open(), open());
        assert_ne!(number(master.as_fd()), number(other.as_fd()));
        let mut own = settings(master.as_fd()).unwrap();
        own.c_cc[0] = 7;
        set_settings(master.as_fd(), &own).unwrap();
        assert_eq!(settings(master.as_fd()).unwrap().c_cc[0], 7);
        let size = winsize { ws_row: 33, ws_col: 99, ws_xpixel: 1, ws_ypixel: 2 };
        set_window_size(master.as_fd(), &size).unwrap();
        let told = window_size(master.as_fd()).unwrap();
        assert_eq!((told.ws_row, told.ws_col, told.ws_ypixel), (33, 99, 2));
        assert!(!is_packet_mode(master.as_fd()).unwrap());
        set_packet_mode(master.as_fd(), true).unwrap();
        assert!(is_packet_mode(master.as_fd()).unwrap());
        assert!(is_locked(master.as_fd()).unwrap());
        set_lock(master.as_fd(), false).unwrap();
        assert!(!is_locked(master.as_fd()).unwrap());
    }
}

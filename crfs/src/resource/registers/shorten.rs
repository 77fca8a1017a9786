//! Calls that wait with a time limit and forget it when they are interrupted: how they go on with the time that remained.
//!
//! They answer EINTR to a freeze (io_pgetevents(2) starts again) and leave no restart block, so they start again from their registers, and the time limit there is
//! put down to what remained. epoll_wait(2) has it in a register; the others point to a timespec, which for this once stands below the
//! stack, where nothing of the program's is: beyond the 128 bytes that a function may use without moving its stack pointer (System
//! V ABI, 3.2.2). So the program's memory is as it was. The one register that held the limit keeps the new value when the
//! call returns, where the kernel would have left the old one: libraries make these calls in functions of their own, whose
//! caller expects nothing there.
//!
//! The same is done at the first thaw after a restore to calls that do have a restart block: it was made by the build, and the time
//! that has passed since is to count for nothing.

use super::resume::{self, Wait};
use crfs_sys::aio::SYS_IO_PGETEVENTS;
use crfs_tracee::UserRegs;
use image_format::Timespec;
use image_format::thread::Resume;

/// What a function may use below its stack pointer.
const RED_ZONE: u64 = 128;
/// `-ERESTARTNOHAND`, `include/linux/errno.h`.
const RESTARTNOHAND: i64 = -514;
/// `-ERESTART_RESTARTBLOCK`.
const RESTART_RESTARTBLOCK: i64 = -516;

/// Where a call has its time limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    /// Milliseconds in r10.
    MillisecondsR10,
    /// Milliseconds in rdx.
    MillisecondsRdx,
    /// The address of a timespec in this register.
    R10,
    Rdx,
    R8,
    Rdi,
}

fn limit(call: i64) -> Option<Limit> {
    Some(match call {
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => Limit::MillisecondsR10,
        libc::SYS_epoll_pwait2 | libc::SYS_semtimedop => Limit::R10,
        libc::SYS_rt_sigtimedwait => Limit::Rdx,
        libc::SYS_io_getevents | SYS_IO_PGETEVENTS => Limit::R8,
        _ => return None,
    })
}

/// Whether the system call of this number is one of them that the kernel itself starts again, in full.
#[must_use]
pub fn begins_in_full(call: i64) -> bool {
    call == SYS_IO_PGETEVENTS
}

/// Whether the system call of this number is one of them.
#[must_use]
pub fn applies(call: i64) -> bool {
    limit(call).is_some()
}

/// A timespec that must stand in the thread's memory before it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where.
    pub address: u64,
    /// The timespec.
    pub bytes: [u8; 16],
}

/// Makes an interrupted call start again for the time that remained. Nothing changes for any other call. What is returned is to be
/// written before the registers are set.
pub fn shorten(regs: &mut UserRegs, remaining: Timespec) -> Option<Place> {
    let limit = limit(regs.orig_rax.cast_signed())?;
    put(regs, limit, remaining)
}

/// Makes a call that would go on by its restart block start again for the time that remained. Nothing changes for one that has none, or
/// waits until a point in time.
pub fn begin_again(regs: &mut UserRegs, remaining: Timespec) -> Option<Place> {
    if regs.rax.cast_signed() != RESTART_RESTARTBLOCK {
        return None;
    }
    let limit = match resume::wait(regs.orig_rax, RESTART_RESTARTBLOCK, regs.rsi)? {
        Wait::Sleep if regs.orig_rax.cast_signed() == libc::SYS_nanosleep => Limit::Rdi,
        Wait::Sleep => Limit::Rdx,
        Wait::Poll => Limit::MillisecondsRdx,
        Wait::Futex => Limit::R10,
    };
    put(regs, limit, remaining)
}

fn put(regs: &mut UserRegs, limit: Limit, remaining: Timespec) -> Option<Place> {
    regs.rax = RESTARTNOHAND.cast_unsigned();
    let remaining = Timespec::from_ns(remaining.ns().max(0));
    let address = regs.rsp.wrapping_sub(RED_ZONE + 16) & !15;
    let ns = u64::try_from(remaining.ns()).unwrap_or(u64::MAX);
    let milliseconds = ns.div_ceil(1_000_000).min(i32::MAX.cast_unsigned().into());
    match limit {
        Limit::MillisecondsR10 => {
            regs.r10 = milliseconds;
            return None;
        }
        Limit::MillisecondsRdx => {
            regs.rdx = milliseconds;
            return None;
        }
        Limit::R10 => regs.r10 = address,
        Limit::Rdi => regs.rdi = address,
        Limit::Rdx => regs.rdx = address,
        Limit::R8 => regs.r8 = address,
    }
    Some(Place { address, bytes: super::restore::timespec(remaining) })
}

/// The same for a call as it is recorded.
pub fn shorten_recorded(regs: &mut UserRegs, resume: Option<&Resume>) -> Option<Place> {
    match resume {
        Some(&Resume::Remaining(remaining)) => shorten(regs, remaining),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regs(call: i64) -> UserRegs {
        let registers = image_format::thread::Registers::default();
        let tls = image_format::thread::Tls { fs_base: image_format::Address(0), gs_base: image_format::Address(0) };
        let regs = super::super::restore::user_regs(&registers, &tls);
        UserRegs { orig_rax: call.cast_unsigned(), rax: (-4i64).cast_unsigned(), rsp: 0x7000_1238, r10: 6000, ..regs }
    }

    #[test]
    fn a_limit_in_a_register_is_rounded_up() {
        let mut registers = regs(libc::SYS_epoll_wait);
        assert_eq!(shorten(&mut registers, Timespec { sec: 1, nsec: 1 }), None);
        assert_eq!((registers.r10, registers.rax.cast_signed()), (1001, -514));
    }

    #[test]
    fn a_timespec_stands_below_the_red_zone() {
        let mut registers = regs(libc::SYS_rt_sigtimedwait);
        let place = shorten(&mut registers, Timespec { sec: 2, nsec: 5 }).expect("a timespec");
        assert!(place.address + 16 <= registers.rsp - RED_ZONE && place.address.is_multiple_of(16), "{place:x?}");
        assert_eq!((registers.rdx, registers.r10), (place.address, 6000));
        assert_eq!((place.bytes[0], place.bytes[8]), (2, 5));
    }

    #[test]
    fn a_restart_block_is_replaced() {
        let block = (-516i64).cast_unsigned();
        let mut sleep = UserRegs { rax: block, ..regs(libc::SYS_nanosleep) };
        let place = begin_again(&mut sleep, Timespec { sec: 2, nsec: 0 }).expect("a timespec");
        assert_eq!((sleep.rdi, sleep.rax.cast_signed()), (place.address, -514));
        let mut poll = UserRegs { rax: block, ..regs(libc::SYS_poll) };
        assert_eq!(begin_again(&mut poll, Timespec { sec: 2, nsec: 0 }), None);
        assert_eq!((poll.rdx, poll.rax.cast_signed()), (2000, -514));
        let mut until = UserRegs { rax: block, rsi: 9, ..regs(libc::SYS_futex) };
        assert_eq!(begin_again(&mut until, Timespec::default()), None, "FUTEX_WAIT_BITSET waits for a point in time");
        assert_eq!(until.rax, block);
    }

    #[test]
    fn other_calls_are_left_alone() {
        let mut registers = regs(libc::SYS_read);
        assert_eq!(shorten(&mut registers, Timespec::default()), None);
        assert_eq!((registers.r10, registers.rax.cast_signed()), (6000, -4));
    }
}

//! How an interrupted system call goes on: pure decisions from what the kernel left in the registers.
//!
//! Codes: `include/linux/errno.h`; which call leaves which: `kernel/time/hrtimer.c`, `fs/select.c`,
//! `kernel/futex/waitwake.c`, v6.18.

use super::{shorten, syscalls};
use image_format::Timespec;
use image_format::thread::{InterruptedSyscall, Resume};

/// Entered again unless a handler without SA_RESTART runs.
const RESTARTSYS: i64 = -512;
/// Entered again in any case.
const RESTARTNOINTR: i64 = -513;
/// Entered again unless a handler runs: then it returns EINTR.
const RESTARTNOHAND: i64 = -514;
/// `-ERESTART_RESTARTBLOCK`: the kernel remembers the end of the wait.
const RESTART_RESTARTBLOCK: i64 = -516;
const EINTR: i64 = -4;

const FUTEX_WAIT: u64 = 0;
const FUTEX_CMD_MASK: u64 = !(128 | 256);

/// The restart block that a call in this state must have, if it is one that waits for a relative time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// nanosleep(2) and relative clock_nanosleep(2).
    Sleep,
    /// poll(2).
    Poll,
    /// futex(2) FUTEX_WAIT.
    Futex,
}

/// Which restart block tells how long the call still has to wait. `None` for a call that has none or waits for a point in
/// time: that one is entered again as it was.
#[must_use]
pub fn wait(number: u64, result: i64, second_argument: u64) -> Option<Wait> {
    if result != RESTART_RESTARTBLOCK {
        return None;
    }
    let is = |call: libc::c_long| u64::try_from(call) == Ok(number);
    if is(libc::SYS_nanosleep) || is(libc::SYS_clock_nanosleep) {
        Some(Wait::Sleep)
    } else if is(libc::SYS_poll) {
        Some(Wait::Poll)
    } else if is(libc::SYS_futex) && second_argument & FUTEX_CMD_MASK == FUTEX_WAIT {
        Some(Wait::Futex)
    } else {
        None
    }
}

/// Whether a call with this result has ended: it is not one with which the kernel asks itself to enter the call again.
#[must_use]
pub fn is_over(result: i64) -> bool {
    !matches!(result, RESTART_RESTARTBLOCK | RESTARTSYS | RESTARTNOINTR | RESTARTNOHAND)
}

/// What is recorded of a call in progress, and the value of rax to go with it.
///
/// `number` is orig_rax, negative outside of a call; `remaining` is what the restart block of [`wait`] says, `None` when the
/// call waits without end, or its end cannot be told.
#[must_use]
pub fn decide(number: i64, result: i64, remaining: Option<Timespec>) -> (i64, Option<InterruptedSyscall>) {
    let Ok(call) = u64::try_from(number) else { return (result, None) };
    let (rax, resume) = match result {
        RESTART_RESTARTBLOCK => match remaining {
            Some(remaining) => (RESTART_RESTARTBLOCK, Resume::Remaining(remaining)),
            // Another task has no restart block, and the arguments alone say it all. A handler ends either with EINTR.
            None => (RESTARTNOHAND, Resume::Again),
        },
        RESTARTSYS | RESTARTNOINTR | RESTARTNOHAND => match remaining {
            Some(remaining) if shorten::begins_in_full(number) => (result, Resume::Remaining(remaining)),
            _ => (result, Resume::Again),
        },
        // The freeze caused it, or a signal that is on its way: then its handler makes it EINTR again.
        EINTR if syscalls::leaks_eintr(call) => match remaining {
            Some(remaining) if shorten::applies(number) || syscalls::socket_limit(number).is_some() => {
                (RESTARTNOHAND, Resume::Remaining(remaining))
            }
            _ => (RESTARTNOHAND, Resume::Again),
        },
        _ => (result, Resume::Ended),
    };
    (rax, Some(InterruptedSyscall { name: syscalls::name(call), resume }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NANOSLEEP: u64 = 35;

    #[test]
    fn outside_of_a_call_there_is_nothing_to_resume() {
        assert_eq!(decide(-1, 17, None), (17, None));
    }

    #[test]
    fn a_call_is_over_unless_the_kernel_enters_it_again() {
        assert!([-512, -513, -514, -516].into_iter().all(|result| !is_over(result)));
        assert!([0, 1, -4, -110].into_iter().all(is_over));
    }

    #[test]
    fn each_code_leads_to_its_way_on() {
        let second = Timespec { sec: 1, nsec: 0 };
        let cases = [
            (35, -516, Some(second), -516, Resume::Remaining(second)),
            (7, -516, None, -514, Resume::Again),
            (0, -512, None, -512, Resume::Again),
            (130, -514, None, -514, Resume::Again),
            (232, -4, None, -514, Resume::Again),
            (232, -4, Some(second), -514, Resume::Remaining(second)),
            (333, -514, Some(second), -514, Resume::Remaining(second)),
            (333, -514, None, -514, Resume::Again),
            (45, -4, Some(second), -514, Resume::Remaining(second)),
            (45, -4, None, -514, Resume::Again),
            (3, -4, None, -4, Resume::Ended),
            (0, 5, None, 5, Resume::Ended),
        ];
        for (number, result, remaining, rax, resume) in cases {
            let (got, call) = decide(number, result, remaining);
            assert_eq!((got, call.map(|call| call.resume)), (rax, Some(resume)), "call {number} with {result}");
        }
    }

    #[test]
    fn a_point_in_time_needs_no_restart_block() {
        assert_eq!(wait(NANOSLEEP, -516, 0), Some(Wait::Sleep));
        assert_eq!(wait(NANOSLEEP, -512, 0), None);
        assert_eq!(wait(202, -516, 128), Some(Wait::Futex), "FUTEX_WAIT_PRIVATE");
        assert_eq!(wait(202, -516, 9 | 128), None, "FUTEX_WAIT_BITSET is absolute");
    }
}

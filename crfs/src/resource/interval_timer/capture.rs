//! Captures the armed interval timers of a process.

use super::super::container::Moment;
use super::super::kernel::Kernel;
use crate::failure::Failure;
use crfs_kstate::Itimer;
use image_format::Timespec;
use image_format::signal::PendingSignal;
use image_format::timer::{IntervalTimer, IntervalTimerKind};

/// asm-generic/siginfo.h
const SI_KERNEL: i32 = 0x80;

/// Reads them through the process's leader; none when that cannot be told. `object` is the leader's directory.
///
/// # Errors
/// When the process is gone.
pub fn read(host: i32, object: &str, kernel: &mut Kernel) -> Result<Option<[Itimer; 3]>, Failure> {
    kernel.ask(host, &format!("{object}/timers"), |state, task| state.itimers(task))
}

/// Whether none has expired between two looks.
#[must_use]
pub fn none_expired(before: &[Itimer; 3], after: &[Itimer; 3]) -> bool {
    let state = |timer: &Itimer| (timer.expires_ns, timer.remaining_ns == 0);
    before.iter().map(state).eq(after.iter().map(state))
}

/// The armed ones of what [`read`] found. `fires_yet`: whether ITIMER_REAL has yet to send a signal that was left out ([`fires_yet`]).
#[must_use]
pub fn records(timers: &[Itimer; 3], moment: &Moment, fires_yet: bool) -> Vec<IntervalTimer> {
    let kinds = [IntervalTimerKind::ITIMER_REAL, IntervalTimerKind::ITIMER_VIRTUAL, IntervalTimerKind::ITIMER_PROF];
    let mut records = Vec::new();
    for (which, timer) in kinds.into_iter().zip(timers) {
        let mut remaining = i128::from(timer.remaining_ns);
        if let Some(expires) = timer.expires_ns {
            let left = i128::from(expires) - i128::from(moment.monotonic_ns);
            // A microsecond at least: zero would disarm it.
            remaining = match (timer.remaining_ns, timer.interval_ns) {
                // Over, or stopped.
                (0, 0) if !fires_yet => 0,
                // One that has fired is armed again, in phase, when its signal is taken.
                (0, interval) if interval > 0 => next_end(left, interval.into()).max(1000),
                _ => left.max(1000),
            };
        }
        if remaining > 0 {
            let interval = Timespec::from_ns(i128::from(timer.interval_ns));
            records.push(IntervalTimer { which, remaining: Timespec::from_ns(remaining), interval });
        }
    }
    records
}

/// Whether ITIMER_REAL has fired after the moment that the clocks go on from: then it has yet to, and its signal is left out.
#[must_use]
pub fn fires_yet(timers: &[Itimer; 3], moment: &Moment, signal: &PendingSignal) -> bool {
    let [real, ..] = timers;
    let since = real.expires_ns.is_some_and(|expires| i128::from(expires) > i128::from(moment.monotonic_ns));
    real.remaining_ns == 0 && since && i32::from(signal.signal.0) == libc::SIGALRM && signal.code == SI_KERNEL
}

/// What remains of a period when its end may lie behind: until the next one ends.
pub(in crate::resource) fn next_end(left: i128, interval: i128) -> i128 {
    if left > 0 { left } else { interval - (-left) % interval }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image_format::Blob;
    use image_format::signal::Signal;

    #[test]
    fn a_period_that_ended_goes_on_in_phase() {
        assert_eq!([(3, 10), (0, 10), (-4, 10), (-10, 10), (-27, 10)].map(|(l, i)| next_end(l, i)), [3, 10, 6, 10, 3]);
    }

    #[test]
    fn one_that_expired_after_the_moment_is_carried_in_the_place_of_its_signal() {
        let moment = Moment { monotonic_ns: 5_000_000, ..Moment::default() };
        let looks =
            |expires| [Itimer { expires_ns: expires, ..Itimer::default() }, Itimer::default(), Itimer::default()];
        let signal = |code| PendingSignal { signal: Signal(14), code, siginfo: Blob(vec![]) };
        let (later, before) = (looks(Some(7_000_000)), looks(Some(4_000_000)));
        assert!(fires_yet(&later, &moment, &signal(SI_KERNEL)));
        assert!(!fires_yet(&later, &moment, &signal(libc::SI_USER)), "kill(2) has sent it");
        assert!(!fires_yet(&before, &moment, &signal(SI_KERNEL)), "it waited before");
        assert!(!fires_yet(&looks(None), &moment, &signal(SI_KERNEL)));
        let remaining = |timers, fires| records(timers, &moment, fires).first().map(|timer| timer.remaining.ns());
        assert_eq!(remaining(&later, true), Some(2_000_000));
        assert_eq!(remaining(&later, false), None, "stopped before the freeze");
        assert_eq!(remaining(&before, false), None);
    }

    #[test]
    fn an_expiry_is_told_from_time_that_passes() {
        let armed = Itimer { remaining_ns: 500, interval_ns: 0, expires_ns: Some(9_000) };
        let looks = |real| [real, Itimer::default(), Itimer::default()];
        assert!(none_expired(&looks(armed), &looks(Itimer { remaining_ns: 400, ..armed })));
        assert!(!none_expired(&looks(armed), &looks(Itimer::default())));
        let periodic = Itimer { interval_ns: 100, ..armed };
        assert!(!none_expired(&looks(periodic), &looks(Itimer { remaining_ns: 0, ..periodic })));
    }
}

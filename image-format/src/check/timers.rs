//! `timers`: lines that the kernel takes, about threads that are there.

use super::{Findings, duration};
use crate::image::ProcessImage;
use crate::layout::thread_file;
use crate::timer::{IntervalTimer, Notify, PosixTimer, Timer, TimerClock, TimerState};
use crate::types::{Pid, Timespec};
use std::collections::BTreeSet;

/// The largest id and the largest overrun: both are an `int` (kernel/time/posix-timers.c, v6.18).
const INT_MAX: u32 = i32::MAX.cast_unsigned();

pub(super) fn check(pid: Pid, process: &ProcessImage, findings: &mut Findings) {
    let first = process.first_thread().map(|(tid, _)| tid);
    for (&tid, thread) in &process.threads {
        let path = thread_file(pid, tid, "timers");
        let (mut kinds, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for (index, timer) in (0..).zip(&thread.timers) {
            if Some(tid) != first {
                findings.line(&path, index, "timers stand with the first thread that lives");
            }
            let (twin, problems) = match timer {
                Timer::Interval(timer) => {
                    let twin = (!kinds.insert(timer.which)).then(|| format!("{:?} stands there twice", timer.which));
                    (twin, interval_timer(timer))
                }
                Timer::Posix(timer) => {
                    let twin = (!ids.insert(timer.id)).then(|| format!("id {} stands there twice", timer.id));
                    (twin, posix_timer(timer, process))
                }
            };
            for problem in std::iter::once(twin).chain(problems).flatten() {
                findings.line(&path, index, problem);
            }
        }
    }
}

fn interval_timer(timer: &IntervalTimer) -> Vec<Option<String>> {
    vec![remaining(timer.remaining), length("interval", timer.interval)]
}

fn posix_timer(timer: &PosixTimer, process: &ProcessImage) -> Vec<Option<String>> {
    let stranger = |field: &str, thread: Pid| {
        let missing = !process.threads.contains_key(&thread);
        missing.then(|| format!("{field}: the process has no thread {thread}"))
    };
    let too_large = |field: &str, value: u32| (value > INT_MAX).then(|| format!("{field} {value}: beyond {INT_MAX}"));
    let wall = matches!(timer.clock, TimerClock::CLOCK_REALTIME | TimerClock::CLOCK_TAI);
    vec![
        too_large("id", timer.id),
        too_large("overrun", timer.overrun),
        match timer.clock {
            TimerClock::CLOCK_THREAD_CPUTIME_ID(thread) => stranger("clock", thread),
            _ => None,
        },
        match timer.notify {
            Notify::SIGEV_THREAD_ID(to) => stranger("notify", to.thread),
            _ => None,
        },
        match timer.state {
            TimerState::Disarmed => None,
            TimerState::Remaining(time) => remaining(time),
            TimerState::Expired(time) => length("expired", time),
        },
        length("interval", timer.interval),
        (timer.absolute && !wall).then(|| "absolute: its clock is not the wall clock".to_owned()),
    ]
}

fn remaining(time: Timespec) -> Option<String> {
    let zero = time == Timespec::default();
    let zero = zero.then(|| "remaining: an armed timer has some time left".to_owned());
    zero.or_else(|| length("remaining", time))
}

fn length(field: &str, time: Timespec) -> Option<String> {
    duration(time).map(|problem| format!("{field}: {problem}"))
}

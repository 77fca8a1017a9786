//! /proc/PID/timers.

use image_format::Hex;

/// `SIGEV_NONE`, `SIGEV_THREAD` and the bit of `SIGEV_THREAD_ID` (`include/uapi/asm-generic/siginfo.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Nothing,
    Signal,
    Thread,
    ThreadId,
}

/// A timer, as proc_pid_timers(5) lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: u32,
    pub(super) signal: u8,
    pub(super) value: Hex,
    pub(super) way: Way,
    /// Who gets the signal, as the host numbers it.
    pub(super) target: i32,
    /// As the kernel numbers it, negative for processor clocks.
    pub(super) clock: i32,
}

/// Reads the file. None: it has a form that is not known here.
pub(super) fn parse(text: &str) -> Option<Vec<Listed>> {
    let mut lines = text.lines();
    let mut timers = Vec::new();
    while let Some(line) = lines.next() {
        let id = line.strip_prefix("ID: ")?.parse().ok()?;
        let (signal, value) = lines.next()?.strip_prefix("signal: ")?.split_once('/')?;
        let (way, target) = lines.next()?.strip_prefix("notify: ")?.split_once('/')?;
        let (kind, target) = target.split_once('.')?;
        let way = match (way, kind) {
            ("none", "pid") => Way::Nothing,
            ("signal", "pid") => Way::Signal,
            ("thread", "pid") => Way::Thread,
            ("signal", "tid") => Way::ThreadId,
            _ => return None,
        };
        timers.push(Listed {
            id,
            signal: signal.parse().ok()?,
            value: Hex(u64::from_str_radix(value, 16).ok()?),
            way,
            target: target.parse().ok()?,
            clock: lines.next()?.strip_prefix("ClockID: ")?.parse().ok()?,
        });
    }
    Some(timers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_is_known() {
        let text = "ID: 1\nsignal: 60/00007fff86e452a8\nnotify: signal/tid.2634\nClockID: -6\n\
                    ID: 0\nsignal: 0/0000000000000000\nnotify: none/pid.2633\nClockID: 1\n";
        let timers = parse(text).expect("its form is known");
        let value = Hex(0x7fff_86e4_52a8);
        assert_eq!(timers[0], Listed { id: 1, signal: 60, value, way: Way::ThreadId, target: 2634, clock: -6 });
        assert_eq!((timers[1].id, timers[1].way, timers[1].clock), (0, Way::Nothing, 1));
        assert_eq!(parse("ID: 1\nsignal: 60/7f\n"), None);
        assert_eq!(parse("ID: 1\nsignal: 60/7f\nnotify: pipe/pid.3\nClockID: 1\n"), None);
    }
}

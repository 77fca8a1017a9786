//! /proc/PID/stat: `do_task_stat` in `fs/proc/array.c`, v6.18.

use super::{Proc, malformed};
use crate::failure::Failure;

/// The fields of /proc/PID/stat that are used, in its order. What threads of one process may differ in is also set by
/// `subject::Thread::sibling`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // proc_pid_stat(5) has them by these names, but for `pgrp`
pub struct Stat {
    pub comm: Vec<u8>,
    pub state: u8,
    pub ppid: i32,
    pub group: i32,
    pub session: i32,
    pub tty: i32,
    pub foreground: i32,
    pub flags: u32,
    pub start_time: u64,
    pub start_code: u64,
    pub end_code: u64,
    pub start_stack: u64,
    pub exit_signal: i32,
    pub start_data: u64,
    pub end_data: u64,
    pub start_brk: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    pub exit_code: u32,
}

impl Stat {
    /// Reads `path`, which is `PID/stat` or `PID/task/TID/stat`.
    ///
    /// # Errors
    /// When it cannot be read: the task is gone.
    pub fn read(proc: &mut Proc, path: &str) -> Result<Self, Failure> {
        let bytes = proc.record(format_args!("{path}"))?;
        Stat::parse(bytes).ok_or_else(|| malformed(path, "a field"))
    }

    /// The name stands in parentheses and may itself hold some, so fields are counted from the last one.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let open = bytes.iter().position(|&b| b == b'(')?;
        let close = bytes.iter().rposition(|&b| b == b')')?;
        let comm = bytes.get(open + 1..close)?.to_vec();
        // Field 3 of the manual page is index 0 here.
        let fields: Vec<&str> = std::str::from_utf8(bytes.get(close + 1..)?).ok()?.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied();
        let u = |number| field(number)?.parse::<u64>().ok();
        let i = |number| field(number)?.parse::<i32>().ok();
        Some(Stat {
            comm,
            state: *field(3)?.as_bytes().first()?,
            ppid: i(4)?,
            group: i(5)?,
            session: i(6)?,
            tty: i(7)?,
            foreground: i(8)?,
            flags: field(9)?.parse().ok()?,
            start_time: u(22)?,
            start_code: u(26)?,
            end_code: u(27)?,
            start_stack: u(28)?,
            exit_signal: i(38)?,
            start_data: u(45)?,
            end_data: u(46)?,
            start_brk: u(47)?,
            arg_start: u(48)?,
            arg_end: u(49)?,
            env_start: u(50)?,
            env_end: u(51)?,
            exit_code: field(52)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let line = b"42 (a) R 1 (b)) S 7 42 42 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 123 5 6 7 100 200 300 8 9 0 0 0 0 0 0 0 17 0 0 0 0 0 0 400 500 600 700 800 900 1000 256\n";
        let stat = Stat::parse(line).expect("well formed");
        assert_eq!(stat.comm, b"a) R 1 (b)");
        assert_eq!((stat.state, stat.ppid, stat.tty, stat.start_time), (b'S', 7, 0, 123));
        assert_eq!((stat.start_code, stat.end_code, stat.start_stack, stat.exit_signal), (100, 200, 300, 17));
        assert_eq!((stat.start_data, stat.start_brk, stat.env_end, stat.exit_code), (400, 600, 1000, 256));
    }

    #[test]
    fn our_own_is_read() {
        let mut proc = Proc::open().expect("/proc");
        let stat = Stat::read(&mut proc, "thread-self/stat").expect("our own");
        assert_eq!(stat.state, b'R');
        assert!(stat.end_code > stat.start_code && stat.env_end > stat.arg_start);
    }
}

//! /proc/PID/limits: prlimit(2) is refused for another user's process, this file is not.

use image_format::process::Limit;
use std::collections::BTreeMap;

/// The file's words for each limit (`lnames` in `fs/proc/base.c`, v6.18), and its name.
const NAMES: [(&str, &str); 16] = [
    ("Max cpu time", "RLIMIT_CPU"),
    ("Max file size", "RLIMIT_FSIZE"),
    ("Max data size", "RLIMIT_DATA"),
    ("Max stack size", "RLIMIT_STACK"),
    ("Max core file size", "RLIMIT_CORE"),
    ("Max resident set", "RLIMIT_RSS"),
    ("Max processes", "RLIMIT_NPROC"),
    ("Max open files", "RLIMIT_NOFILE"),
    ("Max locked memory", "RLIMIT_MEMLOCK"),
    ("Max address space", "RLIMIT_AS"),
    ("Max file locks", "RLIMIT_LOCKS"),
    ("Max pending signals", "RLIMIT_SIGPENDING"),
    ("Max msgqueue size", "RLIMIT_MSGQUEUE"),
    ("Max nice priority", "RLIMIT_NICE"),
    ("Max realtime priority", "RLIMIT_RTPRIO"),
    ("Max realtime timeout", "RLIMIT_RTTIME"),
];

/// Every limit of the text, by name. None when one is missing.
pub(super) fn parse(text: &str) -> Option<BTreeMap<String, Limit>> {
    let mut limits = BTreeMap::new();
    for (words, name) in NAMES {
        let line = text.lines().find_map(|line| line.strip_prefix(words).filter(|rest| rest.starts_with(' ')))?;
        let mut values = line.split_ascii_whitespace().map(|value| match value {
            "unlimited" => Some(None),
            number => number.parse().ok().map(Some),
        });
        let (soft, hard) = (values.next()??, values.next()??);
        limits.insert(name.to_owned(), Limit { soft, hard });
    }
    Some(limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_are_all_told_as_getrlimit_tells_them() {
        let limits = parse(&std::fs::read_to_string("/proc/self/limits").expect("/proc")).expect("all there");
        assert_eq!(limits.len(), 16);
        let open = crfs_sys::limits::get(nix::unistd::Pid::this(), libc::RLIMIT_NOFILE).expect("our own");
        let finite = |value| (value != crfs_sys::limits::INFINITY).then_some(value);
        assert_eq!(limits["RLIMIT_NOFILE"], Limit { soft: finite(open.soft), hard: finite(open.hard) });
        let core = crfs_sys::limits::get(nix::unistd::Pid::this(), libc::RLIMIT_CORE).expect("our own");
        assert_eq!(limits["RLIMIT_CORE"], Limit { soft: finite(core.soft), hard: finite(core.hard) });
    }

    #[test]
    fn a_text_without_one_of_them_is_refused() {
        assert_eq!(parse("Max cpu time              unlimited            unlimited            seconds\n"), None);
    }
}

//! /proc/PID/fdinfo/N: the lines every kind has, and those of its own.
//!
//! Source: proc_pid_fdinfo(5); `seq_show` in `fs/proc/fd.c`, v6.18.

/// `O_CLOEXEC`: the descriptor's own flag, which the kernel shows among those of the description.
const CLOEXEC: u64 = 0o2_000_000;

/// A parsed fdinfo file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FdInfo {
    /// `pos`.
    pub(crate) position: u64,
    /// `flags` of the description: without close-on-exec.
    pub(crate) flags: u64,
    /// Close-on-exec of this descriptor.
    pub(crate) cloexec: bool,
    /// `mnt_id`.
    pub(crate) mount: u64,
    text: String,
}

impl FdInfo {
    /// None when a line that every descriptor has is missing or no number.
    pub(crate) fn parse(text: String) -> Option<Self> {
        let position = value(&text, "pos")?.parse().ok()?;
        let flags = u64::from_str_radix(value(&text, "flags")?, 8).ok()?;
        let mount = value(&text, "mnt_id")?.parse().ok()?;
        Some(FdInfo { position, flags: flags & !CLOEXEC, cloexec: flags & CLOEXEC != 0, mount, text })
    }

    /// That of a pipe or a socket without a path, by the flags that F_GETFL tells: no position, no mount of any namespace, no lines of its own.
    pub(crate) fn without_a_path(flags: u64, cloexec: bool) -> Self {
        FdInfo { position: 0, flags: flags & !CLOEXEC, cloexec, mount: 0, text: String::new() }
    }

    /// What stands after `name:` in the first line of that name, trimmed.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        value(&self.text, name)
    }

    /// The same of every line of that name.
    pub(crate) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.lines().filter_map(move |line| after(line, name))
    }

    /// The rest of every line that begins so.
    pub(crate) fn beginning<'a>(&'a self, with: &'a str) -> impl Iterator<Item = &'a str> {
        self.text.lines().filter_map(move |line| line.strip_prefix(with))
    }

    /// The value as a hexadecimal number.
    pub(crate) fn hex(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.value(name)?, 16).ok()
    }

    /// The value as a decimal number.
    pub(crate) fn decimal(&self, name: &str) -> Option<u64> {
        self.value(name)?.parse().ok()
    }
}

fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| after(line, name))
}

fn after<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.strip_prefix(name)?.strip_prefix(':').map(str::trim)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_kind() {
        let text = "pos:\t7\nflags:\t02000001\nmnt_id:\t17\nino:\t1038\neventfd-count:                1f\n\
                    tfd:        3 events: 1\ntfd:        4 events: 2\n";
        let info = FdInfo::parse(text.to_owned()).unwrap();
        assert_eq!((info.position, info.flags, info.cloexec, info.mount), (7, 1, true, 17));
        assert_eq!(info.hex("eventfd-count"), Some(31));
        assert_eq!(info.decimal("ino"), Some(1038));
        assert_eq!(info.value("eventfd"), None);
        assert_eq!(info.values("tfd").collect::<Vec<_>>(), ["3 events: 1", "4 events: 2"]);
    }

    #[test]
    fn a_cut_file_is_none() {
        for text in ["", "pos:\t0\n", "pos:\t0\nflags:\t09\nmnt_id:\t1\n", "pos:\t-\nflags:\t0\nmnt_id:\t1\n"] {
            assert_eq!(FdInfo::parse(text.to_owned()), None, "{text:?}");
        }
    }
}

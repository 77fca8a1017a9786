//! From a line of fdinfo to its record.

use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Holder;
use image_format::locks::{Lock, LockKind};
use image_format::{FileId, Pid};

/// Who took the lease of a line, of the descriptors of its description; None for other locks, and when that process has it no more.
pub(in crate::resource) fn lease_taker(line: &str, holders: &[Holder]) -> Option<Pid> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let host: i32 = words.get(4).filter(|_| words.get(1) == Some(&"LEASE"))?.parse().ok()?;
    holders.iter().find(|holder| holder.host == host).map(|holder| holder.pid)
}

/// Reads what stands after `lock:`, such as `1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF` (`lock_get_status` in `fs/locks.c`, v6.18).
/// `name` is the file's, for people.
pub(in crate::resource) fn capture(line: &str, file: FileId, process: Pid, name: &str) -> Result<Lock, Refusal> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let parsed = match words[..] {
        [_, kind, state, access, _, _, start, end] => parse(kind, state, access, start, end),
        _ => None,
    };
    let Some((kind, exclusive, start, end)) = parsed else {
        return Err(Refusal::new(
            format!(
                "{name} is locked in a way that cannot be carried: {}",
                words.get(1..4).unwrap_or_default().join(" ")
            ),
            "Try again when the program has let go of the lock.",
        ));
    };
    Ok(Lock { file, kind, process, exclusive, start, end })
}

fn parse(kind: &str, state: &str, access: &str, start: &str, end: &str) -> Option<(LockKind, bool, u64, Option<u64>)> {
    let kind = match (kind, state) {
        ("FLOCK", "ADVISORY") => LockKind::Flock,
        ("POSIX", "ADVISORY") => LockKind::Posix,
        ("OFDLCK", "ADVISORY") => LockKind::Ofd,
        ("LEASE", "ACTIVE") => LockKind::Lease,
        _ => return None,
    };
    let exclusive = match access {
        "WRITE" => true,
        "READ" => false,
        _ => return None,
    };
    let end = if end == "EOF" { None } else { Some(end.parse().ok()?) };
    Some((kind, exclusive, start.parse().ok()?, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let read = |line| capture(line, FileId(3), Pid(7), "/x").ok();
        let lock =
            |kind, exclusive, start, end| Some(Lock { file: FileId(3), kind, process: Pid(7), exclusive, start, end });
        assert_eq!(read("1: FLOCK  ADVISORY  WRITE 32 fe:00:77 0 EOF"), lock(LockKind::Flock, true, 0, None));
        assert_eq!(read("2: POSIX  ADVISORY  READ 32 fe:00:77 100 199"), lock(LockKind::Posix, false, 100, Some(199)));
        assert_eq!(read("1: OFDLCK ADVISORY  WRITE -1 fe:00:77 5 EOF"), lock(LockKind::Ofd, true, 5, None));
        assert_eq!(read("1: LEASE  ACTIVE    READ 32 fe:00:77 0 EOF"), lock(LockKind::Lease, false, 0, None));
        assert_eq!(read("1: LEASE  BREAKING  READ 32 fe:00:77 0 EOF"), None);
        assert_eq!(read("1: DELEG  ACTIVE    READ 32 fe:00:77 0 EOF"), None);
        assert_eq!(read("1: POSIX"), None);
    }
}

//! From what is open of a task that has ended to its record.

use crate::resource::descriptor::place::OpenPlace;
use crate::resource::descriptor::refused::{self, Refusal};
use crate::resource::descriptor::seen::{Seen, is_writable};
use image_format::Bytes;
use image_format::ended::{EndedTask, Entry};
use nix::errno::Errno;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;

/// Captures a file or directory of /proc whose process or thread has ended. None for any other. `init` is the container's first process as
/// the host numbers it. `at_rest`: its program is frozen.
pub(in crate::resource) fn capture(
    seen: &Seen,
    place: &OpenPlace,
    init: i32,
    at_rest: bool,
) -> Option<Result<EndedTask, Refusal>> {
    if seen.file_system != refused::PROC || !matches!(seen.file_type(), libc::S_IFREG | libc::S_IFDIR) {
        return None;
    }
    let written = place.written(seen)?;
    // Its name stays until somebody looks.
    let path = written.0.strip_suffix(b" (deleted)").unwrap_or(&written.0);
    let is_of_a_task = path.strip_prefix(b"/proc/").and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit);
    let path = Bytes(path.to_vec());
    if !is_of_a_task || place.look(&path).is_ok_and(|found| seen.is_same(&found)) {
        return None;
    }
    // Another mount may be that of another pid namespace, whose ids are others.
    let own = std::fs::metadata(format!("/proc/{init}/root/proc"));
    let is_own = own.is_ok_and(|own| own.dev() == seen.metadata.dev());
    Some(ended(seen, at_rest, Entry::of(&path.0).filter(|_| is_own)))
}

fn ended(seen: &Seen, at_rest: bool, entry: Option<Entry<'_>>) -> Result<EndedTask, Refusal> {
    let refuse = |why: &str, remedy: &str| {
        let reason = format!("{} of the proc file system cannot be carried: {why}", seen.name());
        Err(Refusal::new(reason, remedy))
    };
    if is_writable(seen.flags()) {
        return refuse("it is open for writing", refused::CLOSE);
    }
    let Some(entry) = entry else {
        return refuse("its process or thread has ended, or what it tells of has", refused::CLOSE);
    };
    let mut at_end = false;
    if at_rest && !entry.is_directory() && !seen.is_path() {
        let position = i64::try_from(seen.info.position).unwrap_or(i64::MAX);
        let held = seen.duplicate();
        match held.and_then(|held| crfs_sys::fds::has_more(held.as_fd(), position)) {
            Ok(true) => {
                let why = "it holds the rest of what its process or thread said before it ended";
                return refuse(why, "Have the program read it to its end, or close it.");
            }
            Ok(false) => at_end = seen.info.position > 0 && entry.has_end(),
            Err(Errno::ESRCH) => {}
            Err(error) => return refuse(&format!("it cannot be read: {error}"), refused::CLOSE),
        }
    }
    Ok(EndedTask { path: entry.path(entry.id), at_end })
}

//! How many descriptors this process itself may have: workers hold those of whole containers.

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::fs::File;

/// Raises the soft limit of open files to the hard one, and returns it.
///
/// # Errors
/// Of setrlimit(2).
pub(crate) fn raise() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Lets the table of descriptors grow now. Once threads share it, the kernel waits each time that it grows until no processor can look
/// at the old one any more, which takes longer than opening all that stands in it (`expand_fdtable`, fs/file.c, v6.18).
pub(crate) fn make_room(descriptors: usize) {
    let (Ok(above), Ok(any)) = (i32::try_from(descriptors), File::open("/")) else { return };
    // Where the limit forbids it, those that are opened say so.
    if let Ok(highest) = fcntl(&any, FcntlArg::F_DUPFD_CLOEXEC(above)) {
        let _ = nix::unistd::close(highest);
    }
}

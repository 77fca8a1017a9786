//! From a descriptor to the record and the shared memory.

use super::{Rings, shape};
use crate::resource::descriptor::holders::Kernel;
use crate::resource::descriptor::refused::{CLOSE, Refusal};
use crate::resource::descriptor::seen::Seen;
use crfs_kstate::Error;
use crfs_sys::io_uring::Ring;
use image_format::Hex;
use image_format::io_uring::{FLAGS, IoUring};
use std::os::unix::fs::MetadataExt;

const OFF: &str = "Run the program with io_uring off (many take an option or a variable for that).";

/// `IORING_SETUP_` flags that are not carried (include/uapi/linux/io_uring.h, v6.18).
const REFUSED: [(u64, &str); 7] = [
    (1 << 0, "IORING_SETUP_IOPOLL"),
    (1 << 1, "IORING_SETUP_SQPOLL"),
    (1 << 5, "IORING_SETUP_ATTACH_WQ"),
    (1 << 14, "IORING_SETUP_NO_MMAP"),
    (1 << 15, "IORING_SETUP_REGISTERED_FD_ONLY"),
    (1 << 17, "IORING_SETUP_HYBRID_IOPOLL"),
    (1 << 18, "IORING_SETUP_CQE_MIXED"),
];

/// Captures a ring. Of one whose task runs nothing can be told.
pub(in crate::resource) fn capture(
    seen: &Seen,
    rings: &mut Rings,
    kernel: Option<&Kernel<'_>>,
) -> Result<Option<IoUring>, Refusal> {
    let Some((state, task)) = kernel.and_then(|kernel| kernel.task(seen.holder.host)) else { return Ok(None) };
    let known = match state.io_uring(task, seen.holder.fd) {
        Ok(known) => known,
        Err(Error::FeatureOff { why, .. }) => {
            return Err(Refusal::new(format!("an io_uring, of which this kernel does not tell enough: {why}"), OFF));
        }
        Err(error) => return Err(Refusal::new(format!("an io_uring that cannot be read: {error}"), CLOSE)),
    };
    let ring = IoUring {
        ring: rings.opened(seen.metadata.ino(), known.issuer),
        flags: Hex(known.flags.into()),
        sq_entries: known.sq_entries,
        cq_entries: known.cq_entries,
        submitted: known.submitted,
        completed: known.completed,
        // See `name_issuers`.
        issuer: None,
    };
    let unknown = ring.flags.0 & !FLAGS;
    if unknown != 0 {
        let names: Vec<&str> = REFUSED.iter().filter(|(flag, _)| unknown & flag != 0).map(|&(_, name)| name).collect();
        let names = if names.is_empty() { format!("{unknown:#x}") } else { names.join(", ") };
        return Err(Refusal::new(format!("an io_uring of a kind that is not carried yet ({names})"), OFF));
    }
    if !known.registered.is_empty() {
        let what = known.registered.join(", ");
        return Err(Refusal::new(
            format!("an io_uring with which the program has registered {what}, which is not carried yet"),
            OFF,
        ));
    }
    if known.has_overflown {
        return Err(Refusal::new(
            "an io_uring with more completions than it has room for",
            "Try again when the program has taken them.",
        ));
    }
    // More completions than entries: of requests that complete more than once.
    if ring.submitted.wrapping_sub(ring.completed).cast_signed() < 0 {
        return Err(Refusal::new(
            "an io_uring that has given more completions than it has taken requests (IORING_CQE_F_MORE), which is not carried yet",
            OFF,
        ));
    }
    Ok(Some(ring))
}

/// The memory that a ring shares with its program: the rings of both queues, and behind them the entries to be submitted.
pub(in crate::resource) fn memory(seen: &Seen, ring: &IoUring) -> Result<Vec<u8>, Refusal> {
    let read = || Ring::attach(seen.duplicate()?, shape(ring)).map(|ring| ring.bytes());
    read().map_err(|errno| Refusal::new(format!("an io_uring whose memory cannot be read: {}", errno.desc()), CLOSE))
}

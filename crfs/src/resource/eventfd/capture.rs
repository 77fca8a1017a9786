//! From fdinfo to the record.

use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use image_format::Hex;
use image_format::files::Eventfd;

/// Captures an eventfd.
pub(in crate::resource) fn capture(seen: &Seen) -> Result<Eventfd, Refusal> {
    let unknown = |line| Refusal::unknown_fdinfo("an eventfd", line);
    let count = seen.info.hex("eventfd-count").ok_or_else(|| unknown("eventfd-count"))?;
    let semaphore = seen.info.decimal("eventfd-semaphore").ok_or_else(|| unknown("eventfd-semaphore"))? != 0;
    if count == u64::MAX {
        return Err(Refusal::new(
            "an eventfd whose counter is at its very limit cannot be carried",
            "Try again when the program has read it.",
        ));
    }
    Ok(Eventfd { count: Hex(count), semaphore })
}

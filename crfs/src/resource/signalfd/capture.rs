//! From fdinfo to the record.

use crate::resource::descriptor::refused::Refusal;
use crate::resource::descriptor::seen::Seen;
use image_format::files::Signalfd;
use image_format::signal::SignalSet;

/// Captures a signalfd.
pub(in crate::resource) fn capture(seen: &Seen) -> Result<Signalfd, Refusal> {
    let mask = seen.info.hex("sigmask").ok_or_else(|| Refusal::unknown_fdinfo("a signalfd", "sigmask"))?;
    Ok(Signalfd { mask: SignalSet(mask) })
}

//! From an open device to its record.

use crate::resource::descriptor::place::OpenPlace;
use crate::resource::descriptor::refused::{Refusal, device};
use crate::resource::descriptor::seen::Seen;
use image_format::files::Device;

/// Minor numbers under major 1 (memory devices): null, zero, full, random, urandom.
const STATELESS: [u32; 5] = [3, 5, 7, 8, 9];

/// Whether a device of this number has no state.
pub(in crate::resource) fn is_carried(major: u32, minor: u32) -> bool {
    major == 1 && STATELESS.contains(&minor)
}

/// Captures a device; None when it is not one of those carried.
pub(in crate::resource) fn capture(seen: &Seen, place: &OpenPlace) -> Option<Result<Device, Refusal>> {
    let (major, minor) = device(seen);
    let (major, minor) = (u32::try_from(major).ok()?, u32::try_from(minor).ok()?);
    is_carried(major, minor).then(|| Ok(Device { path: place.path(seen, "device")?, major, minor }))
}

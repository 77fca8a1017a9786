//! Sockets of the families and protocols that have no module, by name.

use super::refused::Refusal;
use super::seen::Seen;
use std::os::unix::fs::MetadataExt;

/// What socket it is, and what to do.
pub(crate) fn refuse(seen: &Seen) -> Refusal {
    let protocol = crfs_sys::xattr::socket_protocol(&seen.holder.path()).unwrap_or_default();
    let what = match protocol.as_str() {
        "" => format!("a socket (inode {})", seen.metadata.ino()),
        other => {
            let name = other.to_lowercase();
            let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
            format!("{article} {name} socket")
        }
    };
    Refusal::new(format!("{what} cannot be carried"), "Have the program close its connections before the freeze.")
}

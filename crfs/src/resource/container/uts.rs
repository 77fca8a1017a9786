//! The uts namespace, read from inside: there is no view of it from elsewhere.

use super::inside::{UTS, inside};
use crate::failure::{Doing, Failure};
use image_format::Bytes;
use image_format::namespaces::UtsNames;
use std::os::unix::ffi::OsStrExt;

/// Joins the namespace of a process (host pid) for a moment and reads them.
///
/// The caller must have one thread, and is back in its own namespace afterwards.
///
/// # Errors
/// When the process is gone, or its namespace cannot be joined.
pub(in crate::resource) fn names(process: i32) -> Result<UtsNames, Failure> {
    inside(process, &[UTS], || {
        let uname = nix::sys::utsname::uname().doing(|| "uname(2)")?;
        Ok(UtsNames {
            hostname: Bytes(uname.nodename().as_bytes().to_vec()),
            domainname: Bytes(uname.domainname().as_bytes().to_vec()),
        })
    })
}

//! The uts namespace, read from inside: there is no view of it from elsewhere.

use super::inside::{UTS, inside};
use crate::failure::{Doing, Failure};
use image_format::Bytes;
use std::os::unix::ffi::OsStrExt;

/// The container's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) hostname: Bytes,
    pub(super) domainname: Bytes,
}

/// Joins the namespace of a process (host pid) for a moment and reads them.
///
/// The caller must have one thread, and is back in its own namespace afterwards.
///
/// # Errors
/// When the process is gone, or its namespace cannot be joined.
pub(super) fn names(init: i32) -> Result<Names, Failure> {
    inside(init, &[UTS], || {
        let uname = nix::sys::utsname::uname().doing(|| "uname(2)")?;
        Ok(Names {
            hostname: Bytes(uname.nodename().as_bytes().to_vec()),
            domainname: Bytes(uname.domainname().as_bytes().to_vec()),
        })
    })
}

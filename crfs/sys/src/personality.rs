//! personality(2) of the calling thread, with every bit kept (nix drops those it has no name for).

use libc::c_ulong;
use nix::Result;
use nix::errno::Errno;

fn personality(persona: u32) -> Result<u32> {
    // SAFETY: a number.
    let old = Errno::result(unsafe { libc::personality(c_ulong::from(persona)) })?;
    Ok(old.cast_unsigned())
}

/// The execution domain and its flags.
pub fn get() -> Result<u32> {
    personality(u32::MAX)
}

/// Sets them and returns the old ones.
pub fn set(persona: u32) -> Result<u32> {
    personality(persona)
}

//! An address in another process, which no one here can mistake for a pointer.

use std::fmt;
use std::ops::Add;

/// An address in the memory of a tracee.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteAddress(pub u64);

impl Add<u64> for RemoteAddress {
    type Output = Self;

    /// Wraps around like the tracee's own arithmetic.
    fn add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

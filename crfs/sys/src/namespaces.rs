//! Namespace flags that nix does not name; setns(2) and unshare(2) themselves are in [`nix::sched`].

use nix::sched::CloneFlags;

/// A new time namespace. With clone3(2) the child is born in it; unshare(2) only prepares it for the next child. It stands in the
/// byte that clone(2) uses for the exit signal, so clone(2) cannot take it.
pub const CLONE_NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

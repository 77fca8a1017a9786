//! Interval timers: setitimer(2).
//!
//! - **What:** ITIMER_REAL, ITIMER_VIRTUAL and ITIMER_PROF, one of each a process.
//! - **Where:** `signal_struct.real_timer`, `.it_real_incr`, `.it[]` (`kernel/time/itimer.c`, v6.18).
//! - **Read:** from kernel memory. ITIMER_REAL ends at a moment of the host's clock and is counted from the freeze; the other
//!   two count the process's own time, which stands still.
//! - **Made again:** by setitimer(2) in the tail, late, so that what is short does not end during the build.
//! - **Refused:** nothing of its own. A periodic ITIMER_REAL that has fired and whose SIGALRM still waits is armed until the end of the
//!   period it is in: the kernel would arm it when the signal is taken, in phase. One that expires while the freeze reads has not yet done
//!   so at the moment that the clocks go on from: it is armed, and its signal left out.

mod capture;
pub mod restore;

pub(super) use capture::next_end;
pub use capture::{fires_yet, none_expired, read, records};

//! Waiting for what is under way on the loopback interface.
//!
//! The kernel goes on delivering while the container's tasks stand still: what was sent just before the freeze arrives, and is
//! acknowledged, by itself.

use std::time::{Duration, Instant};

/// An acknowledgement may be held back for 0.2 s (TCP_DELACK_MAX, include/net/tcp.h, v6.18).
const SETTLING: Duration = Duration::from_millis(400);

/// Asks again until the answer is `settled`, and returns the last one: that is not settled where something stays under way, because
/// a receiver's window is closed.
pub(super) fn settle<T, E>(ask: impl FnMut() -> Result<T, E>, settled: impl Fn(&T) -> bool) -> Result<T, E> {
    settle_within(SETTLING, ask, settled)
}

/// The same with a patience of the caller's, for what must come.
pub(super) fn settle_within<T, E>(
    patience: Duration,
    mut ask: impl FnMut() -> Result<T, E>,
    settled: impl Fn(&T) -> bool,
) -> Result<T, E> {
    let end = Instant::now() + patience;
    loop {
        let answer = ask()?;
        if settled(&answer) || Instant::now() >= end {
            return Ok(answer);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

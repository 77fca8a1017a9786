//! ^C while a worker is at it: a capture is ended, everything else is awaited.
//!
//! Whoever started the capture sees its worker die, and then does what it does after every failed freeze: repairs interrupted
//! calls and thaws. Without this, the death of `crctl` would leave a container that stands still and counts as running.

use crate::failure::{Doing, Failure, Kind};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The capture that a signal ends. Empty before it is waited for, so that the pid is never another's.
static CAPTURE: Mutex<Option<Pid>> = Mutex::new(None);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP end a capture and nothing else in this process. For the main thread of a program that ends
/// after one operation, while it is the only thread.
///
/// # Errors
/// When the signals cannot be blocked or waited for.
pub fn catch() -> Result<(), Failure> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().doing(|| "blocking signals")?;
    let wait = move || {
        while signals.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::SeqCst);
            if let Some(pid) = *CAPTURE.lock().unwrap_or_else(PoisonError::into_inner) {
                // One that has ended by itself is as good.
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    };
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(wait)
        .doing(|| "starting the thread that waits for signals")?;
    Ok(())
}

/// Puts this child in the place that a signal ends, or empties it before the child is waited for.
pub(super) fn capture(child: Option<u32>) {
    let pid = child.map(|pid| Pid::from_raw(pid.cast_signed()));
    *CAPTURE.lock().unwrap_or_else(PoisonError::into_inner) = pid;
    if let Some(pid) = pid.filter(|_| INTERRUPTED.load(Ordering::SeqCst)) {
        // The signal came before there was anything to end.
        let _ = kill(pid, Signal::SIGKILL);
    }
}

/// Whether a signal asked this process to end what it does.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Why a capture ended without a report, if it was this.
pub(super) fn failure() -> Option<Failure> {
    interrupted().then(|| Failure::new(Kind::Interrupted, "interrupted by a signal; it runs on"))
}

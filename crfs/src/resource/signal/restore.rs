//! Signal actions and queued signals. Masks are set last of all, with the registers.

use crfs_tracee::{Arg, Batch};
use image_format::Pid;
use image_format::signal::{ActionFlags, PendingSignal, Signal, SignalAction, SignalSet};
use image_format::types::Address;

/// `sizeof(sigset_t)` of the kernel.
const SIGSET_SIZE: u64 = 8;

/// More than any process has of zombies whose end sent a real-time signal; those of other numbers are queued once.
const MOST_DEATHS: usize = 256;

/// Forgets the signals that zombies and helpers sent while they died, whichever they were made with: queued signals of the image come
/// afterwards. The calls fail with EAGAIN once the queue is empty, which is what they are made for.
pub fn forget_children(batch: &mut Batch, deaths: usize) {
    take_of(batch, u64::MAX, deaths.min(MOST_DEATHS));
}

/// The calls that take a signal off the queues, if it is there, so many times.
pub fn take(batch: &mut Batch, signal: Signal, times: usize) {
    take_of(batch, crfs_sys::signal::bit(signal.0.into()), times);
}

fn take_of(batch: &mut Batch, set: u64, times: usize) {
    let set = batch.data(&set.to_ne_bytes());
    let at_once = batch.data(&[0; 16]);
    for _ in 0..times {
        let args = [set.into(), 0u64.into(), at_once.into(), SIGSET_SIZE.into()];
        batch.attempt(libc::SYS_rt_sigtimedwait, &args, "rt_sigtimedwait");
    }
}

/// The call that has the process not be told when a child stops: for a time before it has its own action.
pub fn quiet_children(batch: &mut Batch) {
    const SA_NOCLDSTOP: u64 = 1;
    let record: Vec<u8> = [0, SA_NOCLDSTOP, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let record = batch.data(&record);
    let args = [u64::from(Signal::SIGCHLD.0).into(), record.into(), 0u64.into(), SIGSET_SIZE.into()];
    batch.call(libc::SYS_rt_sigaction, &args, "rt_sigaction");
}

/// The calls that set these actions of the image. Those it does not name are the default, as in the stub.
pub fn actions<'a>(batch: &mut Batch, actions: impl IntoIterator<Item = &'a SignalAction>) {
    for action in actions {
        let mut record = Vec::with_capacity(32);
        for word in [action.handler.0, action.flags.0, action.restorer.0, action.mask.0] {
            record.extend_from_slice(&word.to_ne_bytes());
        }
        let record = batch.data(&record);
        let args = [u64::from(action.signal.0).into(), record.into(), 0u64.into(), SIGSET_SIZE.into()];
        batch.call(libc::SYS_rt_sigaction, &args, "rt_sigaction");
    }
}

/// The call that sets one action of the image, the default if it does not name it.
pub fn action(batch: &mut Batch, all: &[SignalAction], signal: Signal) {
    let default =
        SignalAction { signal, handler: Address(0), flags: ActionFlags(0), restorer: Address(0), mask: SignalSet(0) };
    actions(batch, [all.iter().find(|action| action.signal == signal).unwrap_or(&default)]);
}

/// The calls by which a thread queues signals to itself (only to itself may any siginfo be sent): to its process, or, with a thread
/// id, to the thread alone. They stay queued since everything is blocked.
pub fn pending<'a>(
    batch: &mut Batch,
    signals: impl Iterator<Item = &'a PendingSignal>,
    process: Pid,
    thread: Option<Pid>,
) {
    for pending in signals {
        let info = batch.data(&pending.siginfo.0);
        let (process, signal) = (Arg::Value(process.0.into()), Arg::Value(pending.signal.0.into()));
        match thread {
            None => batch.call(libc::SYS_rt_sigqueueinfo, &[process, signal, info.into()], "rt_sigqueueinfo"),
            Some(tid) => {
                let args = [process, Arg::Value(tid.0.into()), signal, info.into()];
                batch.call(libc::SYS_rt_tgsigqueueinfo, &args, "rt_tgsigqueueinfo")
            }
        };
    }
}

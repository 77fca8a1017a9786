//! Captures masks, actions, alternate stacks and queues.

use super::super::kernel::Kernel;
use super::super::still::Still;
use crate::failure::Failure;
use crfs_kstate::KernelSigaction;
use crfs_tracee::SigInfo;
use image_format::signal::{
    ActionFlags, AltStack, AltStackFlags, PendingSignal, Signal, SignalAction, SignalMask, SignalSet,
};
use image_format::types::{Address, Blob};

/// What is captured of a thread's signals.
#[derive(Clone, Debug)]
pub struct ThreadSignals {
    /// `signal`.
    pub mask: SignalMask,
    /// `signal.altstack`.
    pub altstack: AltStack,
}

/// Reads what a thread has for itself. `object` is its directory.
///
/// # Errors
/// When the thread is gone.
pub fn thread(still: &Still, object: &str, kernel: &mut Kernel) -> Result<ThreadSignals, Failure> {
    let blocked = still.sigmask(&format!("{object}/signal"), kernel)?.unwrap_or_default();
    let stack = kernel
        .ask(still.tid().raw(), &format!("{object}/signal.altstack"), |state, task| state.alternate_stack(task))?;
    let stack = stack.unwrap_or_default();
    // As sigaltstack(2) reports it: no size is no stack; SS_ONSTACK is not kept but follows from the stack pointer.
    let disabled = if stack.size == 0 { AltStackFlags::SS_DISABLE.0 } else { 0 };
    let flags = u64::from(stack.flags) & AltStackFlags::SS_AUTODISARM.0 | disabled;
    Ok(ThreadSignals {
        mask: SignalMask { blocked: SignalSet(blocked) },
        altstack: AltStack { sp: Address(stack.sp), size: stack.size, flags: AltStackFlags(flags) },
    })
}

/// What waits for a thread or, if `shared`, for its process. `known` is the set of pending signals as of an earlier look at the stopped
/// thread, which has taken none since. `object` is the directory of either.
///
/// # Errors
/// When the thread is gone.
pub fn pending(
    still: &Still,
    shared: bool,
    known: u64,
    object: &str,
    kernel: &mut Kernel,
) -> Result<Vec<PendingSignal>, Failure> {
    let queue = still.pending(shared, &format!("{object}/signal.pending"), kernel)?.unwrap_or_default();
    Ok(records(&queue, known))
}

/// The records of a queue, given also the set of pending signals.
///
/// The kernel keeps only the bit of a signal for which it found no room in the queue, and delivers that as a signal from
/// nobody (`collect_signal` in `kernel/signal.c`): the record is what it will deliver.
fn records(queue: &[SigInfo], set: u64) -> Vec<PendingSignal> {
    let word = |info: &SigInfo, at: usize| {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&info[at..at + 4]);
        i32::from_ne_bytes(bytes)
    };
    let record = |info: &SigInfo| {
        let number = u8::try_from(word(info, 0)).ok().filter(|number| (1..=64).contains(number))?;
        Some(PendingSignal { signal: Signal(number), code: word(info, 8), siginfo: Blob(info.to_vec()) })
    };
    let mut records: Vec<PendingSignal> = queue.iter().filter_map(record).collect();
    for signal in SignalSet(set).iter() {
        if !records.iter().any(|record| record.signal == signal) {
            let mut info: SigInfo = [0; 128];
            info[..4].copy_from_slice(&i32::from(signal.0).to_ne_bytes());
            records.extend(record(&info));
        }
    }
    records
}

/// The actions of a process that are not the default with nothing set. `object` is its directory.
///
/// # Errors
/// When the process is gone.
pub fn actions(host: i32, object: &str, kernel: &mut Kernel) -> Result<Vec<SignalAction>, Failure> {
    let path = format!("{object}/signal.action");
    let Some(actions) = kernel.ask(host, &path, |state, task| state.signal_actions(task))? else {
        return Ok(Vec::new());
    };
    let records = (1..=64u8).zip(actions).filter(|(_, action)| *action != KernelSigaction::default());
    Ok(records
        .map(|(number, action)| SignalAction {
            signal: Signal(number),
            handler: Address(action.handler),
            flags: ActionFlags(action.flags),
            restorer: Address(action.restorer),
            mask: SignalSet(action.mask),
        })
        .collect())
}

/// The signal of that number; none for 0 and for what is no signal.
#[must_use]
pub fn from_number(number: i32) -> Option<Signal> {
    u8::try_from(number).ok().filter(|number| (1..=64).contains(number)).map(Signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_without_room_in_the_queue_is_kept() {
        let mut first: SigInfo = [0; 128];
        first[..4].copy_from_slice(&34i32.to_ne_bytes());
        first[8..12].copy_from_slice(&(-1i32).to_ne_bytes());
        first[24..28].copy_from_slice(&7i32.to_ne_bytes());
        let records = records(&[first, first], 1 << 33 | 1 << 9);
        let told: Vec<_> = records.iter().map(|record| (record.signal.0, record.code)).collect();
        assert_eq!(told, [(34, -1), (34, -1), (10, 0)]);
        assert_eq!(records[2].siginfo.0.len(), 128);
    }
}

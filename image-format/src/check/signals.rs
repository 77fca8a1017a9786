//! Signal actions, queues, masks and alternate stacks.

use super::Findings;
use crate::image::{ProcessImage, ThreadImage};
use crate::layout::{process_file, thread_file};
use crate::signal::{AltStack, AltStackFlags, PendingSignal, Signal, SignalSet};
use crate::types::Pid;
use std::collections::BTreeSet;

const SIGKILL: Signal = Signal(9);
const SIGSTOP: Signal = Signal(19);
/// sizeof(siginfo_t).
const SIGINFO_SIZE: usize = 128;
/// MINSIGSTKSZ of x86-64, the least sigaltstack(2) takes.
const STACK_MIN: u64 = 2048;

pub(super) fn process(pid: Pid, process: &ProcessImage, findings: &mut Findings) {
    let path = process_file(pid, "signal.action");
    let mut seen = BTreeSet::new();
    for (index, action) in (0..).zip(&process.actions) {
        let signal = action.signal;
        if !seen.insert(signal) {
            findings.line(&path, index, format!("{signal} stands there twice"));
        }
        if [SIGKILL, SIGSTOP].contains(&signal) {
            findings.line(&path, index, format!("{signal} has no action to set"));
        }
        if let Some(problem) = unblockable(action.mask) {
            findings.line(&path, index, format!("mask: {problem}"));
        }
    }
    pending(&process_file(pid, "signal.pending"), &process.pending, findings);
}

pub(super) fn thread(pid: Pid, tid: Pid, thread: &ThreadImage, findings: &mut Findings) {
    let path = |name: &str| thread_file(pid, tid, name);
    pending(&path("signal.pending"), &thread.pending, findings);
    if let Some(problem) = unblockable(thread.mask.blocked) {
        findings.add(&path("signal"), format!("blocked: {problem}"));
    }
    if let Some(problem) = altstack(&thread.altstack) {
        findings.add(&path("signal.altstack"), problem);
    }
}

/// The kernel takes these two out of every set silently, so that an image which has them was not read from it.
pub(super) fn unblockable(set: SignalSet) -> Option<String> {
    let signal = set.iter().find(|signal| [SIGKILL, SIGSTOP].contains(signal))?;
    Some(format!("{signal} cannot be in it"))
}

fn pending(path: &str, queue: &[PendingSignal], findings: &mut Findings) {
    for (index, entry) in (0..).zip(queue) {
        let info = &entry.siginfo.0;
        if info.len() != SIGINFO_SIZE {
            findings.line(path, index, format!("siginfo: {} bytes, it has {SIGINFO_SIZE}", info.len()));
            continue;
        }
        // si_signo and si_code: ints at bytes 0 and 8 (include/uapi/asm-generic/siginfo.h, v6.18).
        let word = |at: usize| i32::from_le_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        if word(0) != i32::from(entry.signal.0) {
            let signal = entry.signal;
            findings.line(path, index, format!("siginfo: of signal {}, listed as {signal}", word(0)));
        }
        if word(8) != entry.code {
            findings.line(path, index, format!("code: {}, but the siginfo has {}", entry.code, word(8)));
        }
    }
}

/// A size of zero is no stack too: execve(2) zeroes the size and leaves the flags (fs/exec.c, begin_new_exec, v6.18).
fn altstack(stack: &AltStack) -> Option<String> {
    let AltStack { sp, size, flags } = stack;
    let known = AltStackFlags::NAMES.iter().fold(0, |bits, (_, bit)| bits | bit);
    if flags.0 & !known != 0 {
        return Some(format!("flags: {:#x} is not known here", flags.0 & !known));
    }
    if flags.contains(AltStackFlags::SS_DISABLE) || *size == 0 {
        return None;
    }
    if *size < STACK_MIN {
        return Some(format!("size: {size} bytes, the kernel takes {STACK_MIN} or more"));
    }
    sp.0.checked_add(*size).is_none().then(|| format!("sp: {sp} and {size} bytes pass the end of the address space"))
}

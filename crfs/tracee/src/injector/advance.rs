//! How an injected tracee moves from stop to stop, and what comes in between.

use super::{HeldSignal, Injector, Label};
use crate::code::MARKER_SIGNAL;
use crate::{Error, InjectError, RemoteAddress, Stop, Tracee, UserRegs, Waited};
use libc::c_long;
use std::time::{Duration, Instant};

/// How the tracee is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resume {
    Cont,
    Syscall,
}

pub(super) fn ptrace<T>(result: Result<T, Error>, label: &Label) -> Result<T, InjectError> {
    result.map_err(|source| InjectError::Tracee { label: label.clone(), source })
}

impl Injector {
    /// From any stop to the event stop, without a user instruction in between.
    pub(crate) fn interrupt_here(&mut self, label: &Label) -> Result<(), InjectError> {
        let tracee = self.tracee.as_ref().ok_or(InjectError::Lost { tid: self.tid, label: label.clone() })?;
        ptrace(tracee.interrupt(), label)?;
        match self.advance(Resume::Cont, label)? {
            Stop::Event { .. } => Ok(()),
            stop => Err(InjectError::Unexpected { tid: self.tid, label: label.clone(), stop }),
        }
    }

    /// The registers to begin with: the program's own, but not in a system call, so that the kernel does not restart one.
    pub(super) fn clean_regs(&self) -> UserRegs {
        UserRegs { orig_rax: u64::MAX, eflags: 0x202, ..self.regs }
    }

    /// Brings the tracee to the entry stop of a call.
    pub(crate) fn enter(&mut self, nr: c_long, given: &[u64], label: &Label) -> Result<(), InjectError> {
        let mut args = [0u64; 6];
        args[..given.len()].copy_from_slice(given);
        let [rdi, rsi, rdx, r10, r8, r9] = args;
        let rip = self.gadget.0.0;
        let regs = UserRegs { rip, rax: nr.cast_unsigned(), rdi, rsi, rdx, r10, r8, r9, ..self.clean_regs() };
        self.set_regs(&regs, label)?;
        self.advance_to(Stop::SyscallEntry, label)
    }

    /// Resumes up to an entry or exit stop, past event stops that others caused.
    pub(super) fn advance_to(&mut self, wanted: Stop, label: &Label) -> Result<(), InjectError> {
        loop {
            match self.advance(Resume::Syscall, label)? {
                stop if stop == wanted => return Ok(()),
                Stop::Event { .. } => {}
                stop => return Err(InjectError::Unexpected { tid: self.tid, label: label.clone(), stop }),
            }
        }
    }

    /// Resumes the tracee up to the next stop that means something: children are noted and signals held back on the way. A signal
    /// stop that is returned is the marker's.
    pub(super) fn advance(&mut self, how: Resume, label: &Label) -> Result<Stop, InjectError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let lost = || InjectError::Lost { tid: self.tid, label: label.clone() };
            let tracee = self.tracee.take().ok_or_else(lost)?;
            let running = match how {
                Resume::Cont => tracee.cont(None),
                Resume::Syscall => tracee.syscall(),
            };
            let running = match running {
                // Killed: its end is reported next.
                Err(Error::Gone { .. }) => Tracee::adopt(self.tid),
                other => ptrace(other, label)?,
            };
            let tracee = match ptrace(running.wait(deadline), label)? {
                Waited::Stopped(tracee) => tracee,
                Waited::Gone(exit) => return Err(InjectError::Died { tid: self.tid, label: label.clone(), exit }),
                Waited::Running(running) => {
                    // Back into the hand of the tracer, so that it can be killed or looked at.
                    ptrace(running.interrupt(), label)?;
                    if let Ok(Waited::Stopped(tracee)) = running.wait(Instant::now() + Duration::from_secs(1)) {
                        self.tracee = Some(tracee);
                    }
                    return Err(InjectError::TimedOut { tid: self.tid, label: label.clone() });
                }
            };
            let stop = self.tracee.insert(tracee).stop();
            match stop {
                Stop::Fork { child } | Stop::Vfork { child } | Stop::Clone { child } => self.children.push(child),
                Stop::VforkDone { .. } => {}
                Stop::Signal(number) => {
                    if self.is_marker(number, label)? {
                        return Ok(stop);
                    }
                }
                stop => return Ok(stop),
            }
        }
    }

    /// Looks at a signal that stopped the tracee. Foreign ones are put aside.
    fn is_marker(&mut self, number: i32, label: &Label) -> Result<bool, InjectError> {
        let tracee = self.tracee.as_ref().ok_or(InjectError::Lost { tid: self.tid, label: label.clone() })?;
        let info = ptrace(tracee.siginfo(), label)?;
        let rip = RemoteAddress(ptrace(tracee.regs(), label)?.rip);
        let word = |at: usize| i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        let (code, sender) = (word(8), word(16));
        let is_fault =
            matches!(number, libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP | libc::SIGSYS);
        if is_fault && code > 0 {
            // Holding it back would only let the same instruction fault again.
            return Err(InjectError::Fault { tid: self.tid, label: label.clone(), signal: number, rip });
        }
        let at_marker = number == MARKER_SIGNAL && rip == self.scratch.marker();
        // The kernel drops the siginfo, which then reads as sent by nobody, when RLIMIT_SIGPENDING is used up.
        let own = code == libc::SI_TKILL || (code == libc::SI_USER && sender == 0);
        if !(at_marker && own) {
            self.held.push(HeldSignal { number, info });
        }
        Ok(at_marker)
    }

    pub(super) fn set_regs(&self, regs: &UserRegs, label: &Label) -> Result<(), InjectError> {
        let tracee = self.tracee.as_ref().ok_or(InjectError::Lost { tid: self.tid, label: label.clone() })?;
        ptrace(tracee.set_regs(regs), label)
    }

    pub(super) fn get_regs(&self, label: &Label) -> Result<UserRegs, InjectError> {
        let tracee = self.tracee.as_ref().ok_or(InjectError::Lost { tid: self.tid, label: label.clone() })?;
        ptrace(tracee.regs(), label)
    }
}

//! Tasks that wait in vfork(2) for a child, and the end of threads that did for them what they could not.
//!
//! The parent of a vfork is reported in the middle of its call, when the child is made and before the wait begins (`kernel_clone` in
//! kernel/fork.c, v6.18). In that stop it has registers like any other, but for the child's pid that the call will return; it can run nothing any more.

use std::borrow::Cow;
use std::time::Instant;

use crfs_sys::clone::RawCloneArgs;

use crate::spawn::first_stop;
use crate::{Exit, InjectError, Injector, RemoteAddress, Spawn, Stop, Stopped, Tracee, UserRegs, Waited};

/// A parent in the middle of its vfork, and its child at its birth.
#[derive(Debug)]
pub struct Vforked {
    /// In a [`Stop::Vfork`]. Let go of, it waits until the child calls exec or ends.
    pub parent: Tracee<Stopped>,
    /// In an event stop before any instruction of its own.
    pub child: Tracee<Stopped>,
}

impl Injector {
    /// Makes a process with CLONE_VFORK, and is used up by that.
    ///
    /// # Errors
    /// As [`Injector::spawn`]. [`InjectError::TooLarge`] for more ids than there can be.
    pub fn vfork(mut self, spawn: &Spawn, label: impl Into<Cow<'static, str>>) -> Result<Vforked, InjectError> {
        let label = label.into();
        let ids: Vec<u8> = spawn.set_tid.iter().flat_map(|id| id.to_ne_bytes()).collect();
        let ids_at = self.scratch().data() + RawCloneArgs::default().to_bytes().len() as u64;
        let args = RawCloneArgs {
            flags: spawn.flags | u64::from(libc::CLONE_VFORK.cast_unsigned()),
            exit_signal: u64::from(spawn.exit_signal.cast_unsigned()),
            set_tid: if ids.is_empty() { 0 } else { ids_at.0 },
            set_tid_size: spawn.set_tid.len() as u64,
            ..RawCloneArgs::default()
        };
        let mut bytes = args.to_bytes().to_vec();
        let length = bytes.len() as u64;
        bytes.extend(ids);
        let address = self.place(&bytes)?;
        let tid = self.tid();
        self.enter(libc::SYS_clone3, &[address.0, length], &label)?;
        let failed = |source| InjectError::Tracee { label: label.clone(), source };
        let running = self.take_tracee(&label)?.syscall().map_err(failed)?;
        let deadline = Instant::now() + self.timeout();
        let parent = match running.wait(deadline).map_err(failed)? {
            Waited::Stopped(stopped) => stopped,
            Waited::Gone(exit) => return Err(InjectError::Died { tid, label, exit }),
            Waited::Running(_) => return Err(InjectError::TimedOut { tid, label }),
        };
        match parent.stop() {
            Stop::Vfork { child } => {
                let child = first_stop(Tracee::adopt(child), &label, deadline)?;
                Ok(Vforked { parent, child })
            }
            Stop::SyscallExit => {
                let result = parent.regs().map_err(failed)?.rax.cast_signed();
                self.put_tracee(parent);
                Err(self.failed(label, libc::SYS_clone3, 0, result))
            }
            stop => Err(InjectError::Unexpected { tid, label, stop }),
        }
    }

    /// Where the scratch memory has a `syscall` instruction.
    #[must_use]
    pub fn syscall_instruction(&self) -> RemoteAddress {
        self.scratch().gadget().0
    }
}

/// Ends a thread, which is not the first of its process, from any stop; `syscall` is where its memory has such an instruction.
///
/// # Errors
/// [`InjectError::TimedOut`] when it does not end.
pub fn end_thread(thread: Tracee<Stopped>, syscall: RemoteAddress, deadline: Instant) -> Result<(), InjectError> {
    let label = Cow::Borrowed("end a thread");
    let tid = thread.tid();
    let failed = |source| InjectError::Tracee { label: label.clone(), source };
    let regs = thread.regs().map_err(failed)?;
    let exit = UserRegs {
        rip: syscall.0,
        rax: libc::SYS_exit.cast_unsigned(),
        rdi: 0,
        orig_rax: u64::MAX,
        eflags: 0x202,
        ..regs
    };
    thread.set_regs(&exit).map_err(failed)?;
    let running = thread.cont(None).map_err(failed)?;
    match running.wait(deadline).map_err(failed)? {
        Waited::Gone(Exit::Code(0) | Exit::Unknown) => Ok(()),
        Waited::Gone(exit) => Err(InjectError::Died { tid, label, exit }),
        Waited::Stopped(stopped) => Err(InjectError::Unexpected { tid, label, stop: stopped.stop() }),
        Waited::Running(_) => Err(InjectError::TimedOut { tid, label }),
    }
}

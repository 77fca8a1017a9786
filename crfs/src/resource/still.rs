//! A thread that stands still, and who tells its registers: ptrace of one that stopped for its tracer, and the kernel's memory of one that
//! is in the freezer and did not.
//!
//! Both tell the same, which calibration proves and every capture of a debug build sees once more of each thread.

use super::kernel::Kernel;
use crate::failure::{Doing, Failure, Kind};
use crfs_kstate::{Error, KernelState, RseqArea, Task};
use crfs_tracee::{HostPid, SigInfo, Stopped, Tracee, UserRegs};
use std::fmt::Debug;

/// How often a queue is looked at that changes meanwhile.
const LOOKS: u32 = 100;

/// A thread that stands still.
#[derive(Debug)]
pub enum Still {
    /// It stopped for us.
    Stopped(Tracee<Stopped>),
    /// It is in the freezer and nobody traces it; it must be among the tasks that [`Kernel`] knows.
    Frozen(HostPid),
}

impl Still {
    /// Its id in the host's pid namespace.
    #[must_use]
    pub fn tid(&self) -> HostPid {
        match self {
            Still::Stopped(tracee) => tracee.tid(),
            Still::Frozen(tid) => *tid,
        }
    }

    /// The handle of one that stopped.
    #[must_use]
    pub fn stopped(&self) -> Option<&Tracee<Stopped>> {
        match self {
            Still::Stopped(tracee) => Some(tracee),
            Still::Frozen(_) => None,
        }
    }

    /// The general registers; `path` is the file they are for. None where they cannot be told, which [`Kernel::report`] tells.
    ///
    /// # Errors
    /// When the thread is gone.
    pub fn regs(&self, path: &str, kernel: &mut Kernel) -> Result<Option<UserRegs>, Failure> {
        self.tell(path, kernel, Tracee::regs, KernelState::registers)
    }

    /// The extended state, in the standard XSAVE format.
    ///
    /// # Errors
    /// As [`Still::regs`].
    pub fn xstate(&self, path: &str, kernel: &mut Kernel) -> Result<Option<Vec<u8>>, Failure> {
        self.tell(path, kernel, Tracee::xstate, KernelState::extended_registers)
    }

    /// DR0 to DR7.
    ///
    /// # Errors
    /// As [`Still::regs`].
    pub fn debug_registers(&self, path: &str, kernel: &mut Kernel) -> Result<Option<[u64; 8]>, Failure> {
        self.tell(path, kernel, Tracee::debug_registers, KernelState::debug_registers)
    }

    /// The blocked signals, signal 1 in bit 0.
    ///
    /// # Errors
    /// As [`Still::regs`].
    pub fn sigmask(&self, path: &str, kernel: &mut Kernel) -> Result<Option<u64>, Failure> {
        self.tell(path, kernel, Tracee::sigmask, KernelState::signal_mask)
    }

    /// The area of restartable sequences; none also where that cannot be told.
    ///
    /// # Errors
    /// As [`Still::regs`].
    pub fn rseq(&self, path: &str, kernel: &mut Kernel) -> Result<Option<RseqArea>, Failure> {
        let told = |tracee: &Tracee<Stopped>| {
            let told = tracee.rseq()?;
            Ok(told.map(|told| RseqArea { address: told.address, size: told.size, signature: told.signature }))
        };
        Ok(self.tell(path, kernel, told, KernelState::rseq)?.flatten())
    }

    /// The queue of pending signals, oldest first: the thread's own, or with `shared` the one of its process.
    ///
    /// # Errors
    /// As [`Still::regs`].
    pub fn pending(&self, shared: bool, path: &str, kernel: &mut Kernel) -> Result<Option<Vec<SigInfo>>, Failure> {
        // Timers and other processes send meanwhile: ptrace and the kernel's memory may tell two moments.
        match self {
            Still::Stopped(tracee) => tracee.pending(shared).map(Some).doing(|| path.to_owned()),
            Still::Frozen(tid) => kernel.ask(tid.raw(), path, |state, task| {
                let mut looks = (0..LOOKS).map(|_| state.pending_signals(task, shared));
                let changed = |look: &Result<_, _>| matches!(look, Err(Error::List { .. }));
                looks.find(|look| !changed(look)).unwrap_or_else(|| state.pending_signals(task, shared))
            }),
        }
    }

    /// Asks for all that both can tell, which a debug build compares.
    ///
    /// # Errors
    /// [`Kind::System`] where they tell differently.
    pub fn compare(&self, path: &str, kernel: &mut Kernel) -> Result<(), Failure> {
        self.regs(path, kernel)?;
        self.xstate(path, kernel)?;
        self.debug_registers(path, kernel)?;
        self.sigmask(path, kernel)?;
        self.rseq(path, kernel)?;
        Ok(())
    }

    fn tell<T: PartialEq + Debug>(
        &self,
        path: &str,
        kernel: &mut Kernel,
        told: impl FnOnce(&Tracee<Stopped>) -> Result<T, crfs_tracee::Error>,
        read: impl FnOnce(&KernelState, &Task) -> Result<T, Error>,
    ) -> Result<Option<T>, Failure> {
        let tracee = match self {
            Still::Frozen(tid) => return kernel.ask(tid.raw(), path, read),
            Still::Stopped(tracee) => tracee,
        };
        let told = told(tracee).doing(|| path.to_owned())?;
        if cfg!(debug_assertions)
            && let (state, tasks) = kernel.parts()
            && let Some(task) = tasks.get(&tracee.tid().raw())
            && let Ok(read) = read(state, task)
            && read != told
        {
            let reason = format!("{path}: ptrace tells {told:x?} and kernel memory {read:x?}");
            return Err(Failure::new(Kind::System, reason));
        }
        Ok(Some(told))
    }
}

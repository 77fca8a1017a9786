//! Signal handlers, the alternate stack, and the signals that tie a task to its parent.
//!
//! Source: include/linux/sched/signal.h, include/linux/signal_types.h, include/linux/sched.h, v6.18; sigaction(2), sigaltstack(2), clone(2).

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::{Task, word};

/// Signals of Linux on this architecture.
pub const SIGNALS: usize = 64;

/// `struct k_sigaction`, as rt_sigaction(2) takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelSigaction {
    /// Address, 0 for the default or 1 for ignoring.
    pub handler: u64,
    /// SA_* flags, as the kernel keeps them.
    pub flags: u64,
    /// Address of the restorer, when SA_RESTORER is set.
    pub restorer: u64,
    /// Signals that are blocked while the handler runs, signal n at bit n - 1.
    pub mask: u64,
}

/// The alternate signal stack, as sigaltstack(2) takes it, but see `flags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AltStack {
    /// Lowest address.
    pub sp: u64,
    /// SS_AUTODISARM (1 << 31); SS_DISABLE (2) after it was switched off. Not SS_ONSTACK: that is computed from the stack pointer.
    pub flags: u32,
    /// Bytes. 0: there is none, whatever the flags.
    pub size: u64,
}

/// What job control made of a process, as its parent's waitpid(2) will tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupStop {
    /// It is not stopped, and there is nothing to tell.
    None,
    /// All of its threads are stopped.
    Stopped {
        /// The parent was told (WUNTRACED).
        told: bool,
    },
    /// It goes on since SIGCONT, of which the parent was not told (WCONTINUED).
    Continued,
}

/// `SIGNAL_STOP_STOPPED` and `SIGNAL_STOP_CONTINUED`, include/linux/sched/signal.h, v6.18.
const STOP_STOPPED: u32 = 1;
const STOP_CONTINUED: u32 = 2;

impl KernelState {
    /// The 64 signal actions of the task's process, signal n at index n - 1.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`] for a task that has ended, [`Error::Read`].
    pub fn signal_actions(&self, task: &Task) -> Result<[KernelSigaction; SIGNALS], Error> {
        let view = self.view(Feature::SignalActions, task)?;
        let stride = view.resolved(Path::Sigaction)?.field.size as usize;
        let mut bytes = vec![0; stride * SIGNALS];
        view.bytes(&[Path::TaskSighand, Path::SighandAction], &mut bytes)?;
        let at = |path| view.resolved(path).map(|found| found.field.offset as usize);
        let (handler, flags) = (at(Path::SigactionHandler)?, at(Path::SigactionFlags)?);
        let (restorer, mask) = (at(Path::SigactionRestorer)?, at(Path::SigactionMask)?);
        let mut actions = [KernelSigaction::default(); SIGNALS];
        for (action, bytes) in actions.iter_mut().zip(bytes.chunks_exact(stride)) {
            *action = KernelSigaction {
                handler: word(bytes, handler),
                flags: word(bytes, flags),
                restorer: word(bytes, restorer),
                mask: word(bytes, mask),
            };
        }
        Ok(actions)
    }

    /// The alternate signal stack of the thread.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn alternate_stack(&self, task: &Task) -> Result<AltStack, Error> {
        let view = self.view(Feature::AlternateStack, task)?;
        Ok(AltStack {
            sp: view.u64(&[Path::AltstackSp])?,
            flags: view.u32(&[Path::AltstackFlags])?,
            size: view.u64(&[Path::AltstackSize])?,
        })
    }

    /// What job control made of the task's process. The signal that stopped it is what a tracer sees in its event stop.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`].
    pub fn group_stop(&self, task: &Task) -> Result<GroupStop, Error> {
        let view = self.view(Feature::JobControl, task)?;
        let flags = view.u32(&[Path::TaskSignal, Path::SignalFlags])?;
        // wait_task_stopped (kernel/exit.c) takes the signal away when it has told it.
        let told = view.u32(&[Path::TaskSignal, Path::GroupExitCode])? == 0;
        Ok(match flags & (STOP_STOPPED | STOP_CONTINUED) {
            STOP_STOPPED => GroupStop::Stopped { told },
            STOP_CONTINUED => GroupStop::Continued,
            _ => GroupStop::None,
        })
    }

    /// The signal that the parent gets when the task ends: 0 for none, -1 for a thread that is not its group's leader.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn exit_signal(&self, task: &Task) -> Result<i32, Error> {
        self.view(Feature::ExitSignal, task)?.i32(&[Path::ExitSignal])
    }

    /// The signal that the thread gets when its parent ends (PR_SET_PDEATHSIG), 0 for none.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn pdeath_signal(&self, task: &Task) -> Result<i32, Error> {
        self.view(Feature::PdeathSignal, task)?.i32(&[Path::PdeathSignal])
    }
}

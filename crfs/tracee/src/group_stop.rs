//! Job control in a process whose threads are all in the hand of an injector.
//!
//! A tracee that is in a group stop can be continued by its tracer and be made to run system calls; the stop is a state of its
//! process, in which it is found again when it is let go of. Source: ptrace(2), "Group-stop"; `do_signal_stop`, `prepare_signal`
//! and `__ptrace_unlink` (kernel/signal.c, kernel/ptrace.c), v6.18.

use std::borrow::Cow;
use std::time::Instant;

use crfs_sys::{signal, sigqueue};

use crate::code::MARKER_SIGNAL;
use crate::{InjectError, Injector, Stop, Stopped, Tracee, Waited};

type Label = Cow<'static, str>;

impl Injector {
    /// Stops the process as SIGSTOP and its like do. The action of `signal` must be the default one, and the task the process's first
    /// thread; each other thread has to [join](Injector::join_group_stop) then. False: the kernel ignored the signal, as it does all
    /// but SIGSTOP in an orphaned process group.
    ///
    /// # Errors
    /// [`InjectError::Died`], [`InjectError::TimedOut`]; only when it could not be done.
    pub fn stop_group(&mut self, signal: i32) -> Result<bool, InjectError> {
        let stop = self.meet_signal(signal, Some(signal), "stop by job control".into())?;
        Ok(stop.group_stop() == Some(signal))
    }

    /// Lets a process that was stopped so go on, as SIGCONT does: its parent can be told of that.
    ///
    /// # Errors
    /// As [`Injector::stop_group`].
    pub fn continue_group(&mut self) -> Result<(), InjectError> {
        self.meet_signal(libc::SIGCONT, None, "continue by job control".into()).map(drop)
    }

    /// Brings another thread into the stop that its process is in, or out of it: until then the process counts as one that is about to.
    ///
    /// # Errors
    /// As [`Injector::stop_group`].
    pub fn join_group_stop(&mut self) -> Result<(), InjectError> {
        self.interrupt_here(&"follow its process's job control".into())
    }

    /// Sends a signal, meets it at its delivery, and lets it have its effect, or with None no effect but what it had when it was sent.
    /// No user instruction is run.
    fn meet_signal(&mut self, signal: i32, pass: Option<i32>, label: Label) -> Result<Stop, InjectError> {
        let failed = |label: &Label| {
            let label = label.clone();
            move |source| InjectError::Tracee { label, source }
        };
        let tid = self.tid();
        self.stopped("deliver a signal")?
            .set_sigmask(!(signal::bit(MARKER_SIGNAL) | signal::bit(signal)))
            .map_err(failed(&label))?;
        sigqueue::queue(tid.pid(), signal, 0)
            .map_err(|errno| failed(&label)(crate::Error::new("send a signal to", tid, errno)))?;
        loop {
            let tracee = self.take_tracee(&label)?;
            let stopped = self.step(tracee, None, &label)?;
            if stopped.stop() == Stop::Signal(signal) {
                stopped.interrupt().map_err(failed(&label))?;
                let stopped = self.step(stopped, pass, &label)?;
                stopped.set_sigmask(!signal::bit(MARKER_SIGNAL)).map_err(failed(&label))?;
                return Ok(self.put_tracee(stopped));
            }
            self.put_tracee(stopped);
        }
    }

    /// Continues a tracee to its next stop.
    fn step(
        &self,
        tracee: Tracee<Stopped>,
        signal: Option<i32>,
        label: &Label,
    ) -> Result<Tracee<Stopped>, InjectError> {
        let failed = |source| InjectError::Tracee { label: label.clone(), source };
        let tid = tracee.tid();
        let running = tracee.cont(signal).map_err(failed)?;
        match running.wait(Instant::now() + self.timeout()).map_err(failed)? {
            Waited::Stopped(stopped) => Ok(stopped),
            Waited::Gone(exit) => Err(InjectError::Died { tid, label: label.clone(), exit }),
            Waited::Running(_) => Err(InjectError::TimedOut { tid, label: label.clone() }),
        }
    }
}

//! One traced task, with a type that says whether it runs.
//!
//! Source: ptrace(2).

use std::time::Instant;

use crfs_sys::HostPid;
use crfs_sys::ptrace::{self as sys, Rseq, SigInfo, SockFilter, SyscallStop, UserRegs};
use crfs_sys::wait::{self, Status};
use nix::errno::Errno;
use nix::sys::ptrace as nix_ptrace;
use nix::sys::ptrace::Options;

use crate::{Error, Exit, Stop};

/// What follows a tracee from its seizure on. Children that are attached at birth inherit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeizeOptions {
    /// The task dies with its tracer (`PTRACE_O_EXITKILL`).
    pub exit_kill: bool,
    /// Children with the exit signal SIGCHLD, and those of vfork, are attached at birth and reported.
    pub trace_fork: bool,
    /// Threads and children with another exit signal are attached at birth and reported.
    pub trace_clone: bool,
    /// A stop is reported when it executes a program.
    pub trace_exec: bool,
    /// A system call stop can be told from a SIGTRAP. [`Tracee::syscall`] and the injector need it; it is on by default.
    pub sysgood: bool,
    /// Its seccomp filters do not apply while it is traced (`PTRACE_O_SUSPEND_SECCOMP`); wants CAP_SYS_ADMIN.
    pub suspend_seccomp: bool,
}

impl Default for SeizeOptions {
    /// For looking only: the task goes on whatever happens to the tracer.
    fn default() -> Self {
        Self {
            exit_kill: false,
            trace_fork: false,
            trace_clone: false,
            trace_exec: false,
            sysgood: true,
            suspend_seccomp: false,
        }
    }
}

impl SeizeOptions {
    /// For building: the task is ours, and so is everything it makes; all of it dies with the tracer.
    pub const BUILD: Self = Self {
        exit_kill: true,
        trace_fork: true,
        trace_clone: true,
        trace_exec: false,
        sysgood: true,
        suspend_seccomp: false,
    };

    fn bits(self) -> Options {
        let mut bits = Options::empty();
        bits.set(Options::PTRACE_O_EXITKILL, self.exit_kill);
        bits.set(Options::PTRACE_O_TRACEFORK, self.trace_fork);
        bits.set(Options::PTRACE_O_TRACEVFORK, self.trace_fork);
        bits.set(Options::PTRACE_O_TRACECLONE, self.trace_clone);
        bits.set(Options::PTRACE_O_TRACEEXEC, self.trace_exec);
        bits.set(Options::PTRACE_O_TRACESYSGOOD, self.sysgood);
        // nix has no name for this one.
        bits.set(Options::from_bits_retain(libc::PTRACE_O_SUSPEND_SECCOMP), self.suspend_seccomp);
        bits
    }
}

/// The state of a tracee that runs, or may.
#[derive(Debug)]
pub struct Running(());

/// The state of a tracee that stands still until the tracer says otherwise. Only SIGKILL ends it.
#[derive(Debug)]
pub struct Stopped {
    /// Why it stopped.
    pub stop: Stop,
}

/// A task that the calling thread traces.
///
/// Neither Clone nor Copy: what resumes a task consumes the handle. Dropping one does nothing; the task stays as it is until
/// the tracer exits.
#[derive(Debug)]
#[must_use = "a dropped handle leaves the task traced, and stopped if it was"]
pub struct Tracee<S> {
    tid: HostPid,
    state: S,
}

/// What came of waiting. The task's death is a result like any other.
#[derive(Debug)]
pub enum Waited {
    /// It stopped.
    Stopped(Tracee<Stopped>),
    /// It is dead, and reaped as far as this tracer is concerned.
    Gone(Exit),
    /// It still runs: there was nothing to report up to the deadline.
    Running(Tracee<Running>),
}

impl<S> Tracee<S> {
    /// The task's id in the tracer's pid namespace.
    pub fn tid(&self) -> HostPid {
        self.tid
    }

    fn error(&self, action: &'static str) -> impl FnOnce(Errno) -> Error + use<S> {
        let tid = self.tid;
        move |errno| Error::new(action, tid, errno)
    }
}

impl Tracee<Running> {
    /// Begins to trace a task without stopping it.
    ///
    /// # Errors
    /// [`Error::Gone`] when there is no such task; `EPERM` when it is somebody else's tracee, is a zombie or may not be traced.
    pub fn seize(tid: HostPid, options: SeizeOptions) -> Result<Self, Error> {
        nix_ptrace::seize(tid.pid(), options.bits()).map_err(|errno| Error::new("seize", tid, errno))?;
        Ok(Self::adopt(tid))
    }

    /// The handle of a task that was attached at birth, as a child of a tracee with `trace_fork` or `trace_clone`. It stops by
    /// itself, in a [`Stop::Event`], before its first instruction.
    pub fn adopt(tid: HostPid) -> Self {
        Self { tid, state: Running(()) }
    }

    /// Asks for a [`Stop::Event`]. Other stops may come before it.
    ///
    /// # Errors
    /// [`Error::Gone`] when the task is dead.
    pub fn interrupt(&self) -> Result<(), Error> {
        nix_ptrace::interrupt(self.tid.pid()).map_err(self.error("interrupt"))
    }

    /// Waits for the next stop, or the end.
    ///
    /// The end of a process's first thread is reported after those of its other threads were, and the end of a pid namespace's
    /// init after those of all its members: wait for them in that order.
    ///
    /// # Errors
    /// Only what ptrace refuses when asked about the stop.
    pub fn wait(self, deadline: Instant) -> Result<Waited, Error> {
        let mut running = self;
        loop {
            running = match wait::wait_until(running.tid.pid(), deadline) {
                Ok(None) => return Ok(Waited::Running(running)),
                // A stop that SIGKILL ended before it could be looked at: the end follows.
                Ok(Some(status)) => match running.decode(status)? {
                    Waited::Running(running) => running,
                    other => return Ok(other),
                },
                Err(errno) => return running.not_ours(errno),
            }
        }
    }

    fn not_ours(self, errno: Errno) -> Result<Waited, Error> {
        match self.error("wait for")(errno) {
            Error::Gone { .. } => Ok(Waited::Gone(Exit::Unknown)),
            error => Err(error),
        }
    }

    /// What a status that waitpid(2) gave means for this task.
    fn decode(self, status: Status) -> Result<Waited, Error> {
        let (signal, event) = match status {
            Status::Exited { code } => return Ok(Waited::Gone(Exit::Code(code))),
            Status::Signaled { signal, core } => return Ok(Waited::Gone(Exit::Signal { number: signal, core })),
            Status::Stopped { signal, event } => (signal, event),
        };
        match self.stop(signal, event) {
            Ok(stop) => Ok(Waited::Stopped(Tracee { tid: self.tid, state: Stopped { stop } })),
            // SIGKILL between the stop and the question; its end can be waited for like any other.
            Err(Error::Gone { .. }) => Ok(Waited::Running(self)),
            Err(error) => Err(error),
        }
    }

    fn stop(&self, signal: i32, event: i32) -> Result<Stop, Error> {
        let message = || nix_ptrace::getevent(self.tid.pid()).map_err(self.error("read the event of"));
        let child = || {
            // Event messages of this kind are pids.
            let raw = i32::try_from(message()?).map_err(|_| self.error("read the event of")(Errno::EOVERFLOW))?;
            Ok::<_, Error>(HostPid::new(raw))
        };
        Ok(match event {
            0 if signal == libc::SIGTRAP | 0x80 => {
                match sys::syscall_stop(self.tid.pid()).map_err(self.error("read the system call of"))? {
                    SyscallStop::Entry => Stop::SyscallEntry,
                    _ => Stop::SyscallExit,
                }
            }
            0 => Stop::Signal(signal),
            libc::PTRACE_EVENT_FORK => Stop::Fork { child: child()? },
            libc::PTRACE_EVENT_VFORK => Stop::Vfork { child: child()? },
            libc::PTRACE_EVENT_VFORK_DONE => Stop::VforkDone { child: child()? },
            libc::PTRACE_EVENT_CLONE => Stop::Clone { child: child()? },
            libc::PTRACE_EVENT_EXEC => Stop::Exec { former: child()? },
            libc::PTRACE_EVENT_EXIT => Stop::Exit {
                status: i32::try_from(message()?).map_err(|_| self.error("read the event of")(Errno::EOVERFLOW))?,
            },
            libc::PTRACE_EVENT_SECCOMP => {
                Stop::Seccomp { data: u16::try_from(message()? & 0xffff).unwrap_or(u16::MAX) }
            }
            // PTRACE_EVENT_STOP, the only one left.
            _ => Stop::Event { signal },
        })
    }
}

/// One seccomp filter of a task.
#[derive(Clone, Debug)]
pub struct SeccompFilter {
    /// `SECCOMP_FILTER_FLAG_*` it was installed with, as far as the kernel keeps them.
    pub flags: u64,
    /// Its program.
    pub instructions: Vec<SockFilter>,
}

impl Tracee<Stopped> {
    /// Why it stopped.
    pub fn stop(&self) -> Stop {
        self.state.stop
    }

    /// The general registers.
    pub fn regs(&self) -> Result<UserRegs, Error> {
        nix_ptrace::getregs(self.tid.pid()).map_err(self.error("read the registers of"))
    }

    /// Sets the general registers.
    pub fn set_regs(&self, regs: &UserRegs) -> Result<(), Error> {
        nix_ptrace::setregs(self.tid.pid(), *regs).map_err(self.error("set the registers of"))
    }

    /// The extended state, in the uncompacted XSAVE format.
    pub fn xstate(&self) -> Result<Vec<u8>, Error> {
        sys::xstate(self.tid.pid()).map_err(self.error("read the extended state of"))
    }

    /// Sets the extended state.
    pub fn set_xstate(&self, state: &[u8]) -> Result<(), Error> {
        sys::set_xstate(self.tid.pid(), state).map_err(self.error("set the extended state of"))
    }

    /// The blocked signals, signal 1 in bit 0.
    pub fn sigmask(&self) -> Result<u64, Error> {
        sys::sigmask(self.tid.pid()).map_err(self.error("read the signal mask of"))
    }

    /// Sets the blocked signals.
    pub fn set_sigmask(&self, mask: u64) -> Result<(), Error> {
        sys::set_sigmask(self.tid.pid(), mask).map_err(self.error("set the signal mask of"))
    }

    /// DR0 to DR7.
    pub fn debug_registers(&self) -> Result<[u64; 8], Error> {
        sys::debug_registers(self.tid.pid()).map_err(self.error("read the debug registers of"))
    }

    /// Sets DR0 to DR7; 4 and 5 do not exist.
    pub fn set_debug_registers(&self, registers: &[u64; 8]) -> Result<(), Error> {
        sys::set_debug_registers(self.tid.pid(), registers).map_err(self.error("set the debug registers of"))
    }

    /// The restartable sequences registration.
    pub fn rseq(&self) -> Result<Option<Rseq>, Error> {
        sys::rseq(self.tid.pid()).map_err(self.error("read the rseq registration of"))
    }

    /// The queue of pending signals, oldest first: the thread's own, or with `shared` the process's. Nothing is taken out.
    pub fn pending(&self, shared: bool) -> Result<Vec<SigInfo>, Error> {
        sys::peek_siginfo(self.tid.pid(), shared).map_err(self.error("read the pending signals of"))
    }

    /// The siginfo of the signal or event it is stopped by.
    pub fn siginfo(&self) -> Result<SigInfo, Error> {
        sys::siginfo(self.tid.pid()).map_err(self.error("read the signal of"))
    }

    /// The seccomp filters in the order they were installed.
    ///
    /// # Errors
    /// `EACCES` when the tracer lacks CAP_SYS_ADMIN or is under seccomp itself.
    pub fn seccomp_filters(&self) -> Result<Vec<SeccompFilter>, Error> {
        let read = "read the seccomp filters of";
        let mut filters = Vec::new();
        while let Some(instructions) = sys::seccomp_filter(self.tid.pid(), filters.len()).map_err(self.error(read))? {
            let flags = sys::seccomp_filter_flags(self.tid.pid(), filters.len()).map_err(self.error(read))?;
            filters.push(SeccompFilter { flags, instructions });
        }
        Ok(filters)
    }

    /// Turns system calls into signals.
    pub fn set_syscall_dispatch(&self, dispatch: sys::SyscallDispatch) -> Result<(), Error> {
        sys::set_syscall_dispatch(self.tid.pid(), dispatch).map_err(self.error("set the syscall user dispatch of"))
    }

    /// Replaces the options.
    pub fn set_options(&self, options: SeizeOptions) -> Result<(), Error> {
        nix_ptrace::setoptions(self.tid.pid(), options.bits()).map_err(self.error("set the options of"))
    }

    /// Asks for a [`Stop::Event`] to follow this stop, before any user instruction runs.
    pub fn interrupt(&self) -> Result<(), Error> {
        nix_ptrace::interrupt(self.tid.pid()).map_err(self.error("interrupt"))
    }

    /// Lets it run; in a [`Stop::Signal`], `signal` is what it gets.
    ///
    /// In a frozen cgroup it does not run until the thaw, but can be interrupted again.
    pub fn cont(self, signal: Option<i32>) -> Result<Tracee<Running>, Error> {
        sys::cont(self.tid.pid(), signal).map_err(self.error("continue"))?;
        Ok(Tracee::adopt(self.tid))
    }

    /// Lets it run up to the next entry or exit of a system call.
    pub fn syscall(self) -> Result<Tracee<Running>, Error> {
        sys::syscall(self.tid.pid(), None).map_err(self.error("continue"))?;
        Ok(Tracee::adopt(self.tid))
    }

    /// Leaves it in its group stop: it goes on being stopped by job control, and SIGCONT is reported as a further event stop.
    pub fn listen(self) -> Result<Tracee<Running>, Error> {
        sys::listen(self.tid.pid()).map_err(self.error("leave in its group stop"))?;
        Ok(Tracee::adopt(self.tid))
    }

    /// Stops tracing it. From a [`Stop::Event`] nothing is lost; from a [`Stop::Signal`] the signal is, see
    /// [`Tracee::detach_with`].
    pub fn detach(self) -> Result<(), Error> {
        sys::detach(self.tid.pid(), None).map_err(self.error("detach from"))
    }

    /// Stops tracing it, delivering the signal it was stopped by.
    pub fn detach_with(self, signal: i32) -> Result<(), Error> {
        sys::detach(self.tid.pid(), Some(signal)).map_err(self.error("detach from"))
    }
}

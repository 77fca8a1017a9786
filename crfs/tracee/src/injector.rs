//! Making a stopped tracee run system calls.

mod advance;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crfs_sys::memory::{self, RemoteRange};
use crfs_sys::{HostPid, signal};
use libc::c_long;
use nix::errno::Errno;

use advance::{Resume, ptrace};

use crate::batch::{Batch, Chunk, DataRef, Place};
use crate::code::{MARKER_SIGNAL, RESULT_SIZE};
use crate::{Gadget, InjectError, RemoteAddress, Scratch, SeizeOptions, SigInfo, Stop, Stopped, Tracee, UserRegs};

/// An exit takes microseconds.
const LOOK_AGAIN: Duration = Duration::from_micros(50);

type Label = Cow<'static, str>;

/// A signal that came in the middle of an injection and was neither delivered nor passed on.
#[derive(Clone, Copy, Debug)]
pub struct HeldSignal {
    /// Its number.
    pub number: i32,
    /// Its siginfo.
    pub info: SigInfo,
}

/// What a batch left behind.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The result of each call, by its index: a value or a negative errno.
    pub results: Vec<i64>,
    data: Vec<u8>,
}

impl Outcome {
    /// A part of the batch's data as the calls left it; empty for a reference of another batch.
    #[must_use]
    pub fn data(&self, data: DataRef) -> &[u8] {
        self.data.get(data.range()).unwrap_or_default()
    }
}

/// Owns a stopped tracee and makes it run system calls.
///
/// All signals are blocked meanwhile, except the one by which a batch ends; those that nothing blocks are held back in
/// [`Injector::held`]. Children that the calls make stop at their birth and are listed in [`Injector::children`], provided the
/// tracee was seized with [`SeizeOptions::BUILD`](crate::SeizeOptions::BUILD). The tracee's cgroup must not be frozen, or nothing runs.
///
/// [`Injector::release`] gives the tracee back with the registers and the signal mask that it had. Dropping the injector leaves it
/// stopped where the last call left it.
#[derive(Debug)]
pub struct Injector {
    tid: HostPid,
    /// `None` once an error lost it.
    tracee: Option<Tracee<Stopped>>,
    scratch: Scratch,
    gadget: Gadget,
    regs: UserRegs,
    sigmask: u64,
    timeout: Duration,
    pub(crate) children: Vec<HostPid>,
    held: Vec<HeldSignal>,
}

impl Injector {
    /// Takes over a tracee that has scratch memory mapped.
    ///
    /// # Errors
    /// [`InjectError::Memory`] when it has not.
    pub fn new(tracee: Tracee<Stopped>, scratch: Scratch) -> Result<Self, InjectError> {
        scratch.prepare(&tracee)?;
        Self::begin(tracee, scratch, scratch.gadget())
    }

    /// Takes over a tracee that was cloned by another injector's, and has its scratch memory or a copy of it, code and all.
    ///
    /// # Errors
    /// [`InjectError::Tracee`].
    pub fn of_child(tracee: Tracee<Stopped>, parent: &Injector) -> Result<Self, InjectError> {
        Self::begin(tracee, parent.scratch, parent.scratch.gadget())
    }

    /// Takes over a tracee that has none, by a `syscall` instruction of its own: maps scratch memory of `len` bytes, at `at` if that
    /// is given (it must be free).
    ///
    /// # Errors
    /// [`InjectError::Call`] when it cannot be mapped there.
    pub fn bootstrap(
        tracee: Tracee<Stopped>,
        gadget: Gadget,
        at: Option<RemoteAddress>,
        len: u64,
    ) -> Result<Self, InjectError> {
        let nowhere = Scratch { base: RemoteAddress(0), len: 0 };
        let mut injector = Self::begin(tracee, nowhere, gadget)?;
        let mut flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        if at.is_some() {
            flags |= libc::MAP_FIXED_NOREPLACE;
        }
        let args = [
            at.unwrap_or_default().0,
            len,
            u64::from((libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).cast_unsigned()),
            u64::from(flags.cast_unsigned()),
            u64::MAX,
            0,
        ];
        let base = injector.call(libc::SYS_mmap, &args, "map scratch memory")?;
        injector.scratch = Scratch { base: RemoteAddress(base.cast_unsigned()), len };
        let tracee = injector.stopped("map scratch memory")?;
        injector.scratch.prepare(tracee)?;
        injector.gadget = injector.scratch.gadget();
        Ok(injector)
    }

    pub(crate) fn begin(tracee: Tracee<Stopped>, scratch: Scratch, gadget: Gadget) -> Result<Self, InjectError> {
        let label = Cow::Borrowed("save registers and signal mask");
        let regs = ptrace(tracee.regs(), &label)?;
        let sigmask = ptrace(tracee.sigmask(), &label)?;
        ptrace(tracee.set_sigmask(!signal::bit(MARKER_SIGNAL)), &label)?;
        Ok(Self {
            tid: tracee.tid(),
            tracee: Some(tracee),
            scratch,
            gadget,
            regs,
            sigmask,
            timeout: Duration::from_secs(30),
            children: Vec::new(),
            held: Vec::new(),
        })
    }

    /// Sets how long a call or a batch may take; 30 seconds unless told.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// The tracee's id.
    #[must_use]
    pub fn tid(&self) -> HostPid {
        self.tid
    }

    /// The scratch memory.
    #[must_use]
    pub fn scratch(&self) -> Scratch {
        self.scratch
    }

    /// The stopped tracee, for registers and the like. General registers and the signal mask are the injector's until it is released.
    ///
    /// # Errors
    /// [`InjectError::Lost`] after an error that lost it.
    pub fn tracee(&self) -> Result<&Tracee<Stopped>, InjectError> {
        self.stopped("look at it")
    }

    pub(crate) fn stopped(&self, label: &'static str) -> Result<&Tracee<Stopped>, InjectError> {
        self.tracee.as_ref().ok_or(InjectError::Lost { tid: self.tid, label: label.into() })
    }

    /// The children made since the last time this was asked, in the tracer's pid namespace: attached at birth, to be
    /// [adopted](Tracee::adopt).
    pub fn children(&mut self) -> Vec<HostPid> {
        std::mem::take(&mut self.children)
    }

    /// The signals that came meanwhile.
    #[must_use]
    pub fn held(&self) -> &[HeldSignal] {
        &self.held
    }

    /// Runs all calls of a batch and returns their results, by index. A batch that is too large for the scratch memory is run in
    /// pieces.
    ///
    /// # Errors
    /// [`InjectError::Call`] names the first call that must succeed and did not; what came before it has been done.
    pub fn run(&mut self, batch: &Batch) -> Result<Vec<i64>, InjectError> {
        self.run_batch(batch, false).map(|outcome| outcome.results)
    }

    /// [`Injector::run`], and reads back the data that calls may have written.
    ///
    /// # Errors
    /// As [`Injector::run`].
    pub fn run_reading(&mut self, batch: &Batch) -> Result<Outcome, InjectError> {
        self.run_batch(batch, true)
    }

    fn run_batch(&mut self, batch: &Batch, read_back: bool) -> Result<Outcome, InjectError> {
        let mut outcome = Outcome { results: Vec::with_capacity(batch.len()), data: batch.bytes().to_vec() };
        let (max_calls, max_data) = (self.scratch.max_calls(), self.scratch.max_data());
        let mut there = None;
        while outcome.results.len() < batch.len() {
            let chunk = batch.chunk(outcome.results.len(), max_calls, max_data)?;
            let window = &mut outcome.data[chunk.data.clone()];
            // Data that is there already stays, with what calls wrote into it.
            if there.as_ref() != Some(&chunk.data) {
                batch.relocate(window, &chunk.data, self.scratch.data());
                self.write(self.scratch.data(), window)?;
                there = Some(chunk.data.clone());
            }
            let place = Place { results: self.scratch.results(), data: self.scratch.data(), earlier: &outcome.results };
            let entries = batch.encode(&chunk, &place)?;
            let results = self.run_chunk(batch, &chunk, &entries)?;
            outcome.results.extend(results);
            let is_whole = chunk.data.len() == outcome.data.len();
            if !chunk.data.is_empty() && (!is_whole || (read_back && outcome.results.len() == batch.len())) {
                self.read(self.scratch.data(), &mut outcome.data[chunk.data.clone()])?;
            }
        }
        Ok(outcome)
    }

    fn run_chunk(&mut self, batch: &Batch, chunk: &Chunk, entries: &[u8]) -> Result<Vec<i64>, InjectError> {
        let label = batch.label(chunk.calls.start);
        let first = self.scratch.entries();
        let end = first + entries.len() as u64;
        self.write(first, entries)?;
        let regs = UserRegs {
            rip: self.scratch.loop_start().0,
            rbx: first.0,
            r12: end.0,
            r14: self.scratch.results().0,
            ..self.clean_regs()
        };
        self.set_regs(&regs, &label)?;
        loop {
            match self.advance(Resume::Cont, &label)? {
                Stop::Signal(_) => break,
                // Somebody else's interrupt, or job control: neither keeps the batch from going on.
                Stop::Event { .. } => {}
                stop => return Err(InjectError::Unexpected { tid: self.tid, label, stop }),
            }
        }
        let regs = self.get_regs(&label)?;
        let done = usize::try_from(regs.rbx.saturating_sub(first.0) / 64).unwrap_or(usize::MAX).min(chunk.calls.len());
        // The one that failed has a result too.
        let mut bytes = vec![0u8; (done + 1).min(chunk.calls.len()) * RESULT_SIZE];
        self.read(self.scratch.results(), &mut bytes)?;
        let results: Vec<i64> =
            bytes.as_chunks::<RESULT_SIZE>().0.iter().map(|word| i64::from_ne_bytes(*word)).collect();
        if done < chunk.calls.len() {
            let index = chunk.calls.start + done;
            return Err(self.failed(batch.label(index), batch.nr(index), index, results[done]));
        }
        Ok(results)
    }

    pub(crate) fn failed(&self, label: Label, nr: c_long, index: usize, result: i64) -> InjectError {
        let errno = i32::try_from(-result).map_or(Errno::UnknownErrno, Errno::from_raw);
        InjectError::Call { tid: self.tid, label, nr, index, errno }
    }

    /// Puts bytes into the scratch memory for a call made one by one, until the next batch or placing.
    ///
    /// # Errors
    /// [`InjectError::Memory`] when they do not fit or cannot be written.
    pub fn place(&mut self, bytes: &[u8]) -> Result<RemoteAddress, InjectError> {
        let (needed, available) = (bytes.len(), self.scratch.max_data());
        if needed > available {
            return Err(InjectError::TooLarge { label: Cow::Borrowed("place data"), needed, available });
        }
        self.write(self.scratch.data(), bytes)?;
        Ok(self.scratch.data())
    }

    /// Makes one call, which must succeed. Arguments that are left out are 0.
    ///
    /// # Errors
    /// [`InjectError::Call`] when it fails.
    ///
    /// # Panics
    /// With more than six arguments.
    pub fn call(&mut self, nr: c_long, args: &[u64], label: impl Into<Label>) -> Result<i64, InjectError> {
        let label = label.into();
        let result = self.attempt(nr, args, label.clone())?;
        if (-4095..0).contains(&result) { Err(self.failed(label, nr, 0, result)) } else { Ok(result) }
    }

    /// Makes one call and returns what the kernel returned: a value or a negative errno.
    ///
    /// It is run between its entry and exit stops, so that it needs neither a signal nor, once it has begun, the memory it was
    /// called from.
    ///
    /// # Errors
    /// Only when it could not be made.
    ///
    /// # Panics
    /// With more than six arguments.
    pub fn attempt(&mut self, nr: c_long, args: &[u64], label: impl Into<Label>) -> Result<i64, InjectError> {
        let label = label.into();
        self.enter(nr, args, &label)?;
        loop {
            self.advance_to(Stop::SyscallExit, &label)?;
            let result = self.get_regs(&label)?.rax.cast_signed();
            // A signal that nothing can block has interrupted it: once that is held back the kernel makes the call again.
            if !is_restart(result) {
                return Ok(result);
            }
            self.advance_to(Stop::SyscallEntry, &label)?;
        }
    }

    /// Makes a call that would block, and interrupts it before it does: up to its entry stop, interrupt, on to the event stop.
    /// Returns what rax is then: -516 or another restart code when it would have blocked, a result when it was done at once.
    ///
    /// The kernel now holds the call's restart block. Later calls that block with a timeout of their own overwrite it, others
    /// leave it alone.
    ///
    /// # Errors
    /// Only when it could not be made.
    ///
    /// # Panics
    /// With more than six arguments.
    pub fn enter_and_interrupt(
        &mut self,
        nr: c_long,
        args: &[u64],
        label: impl Into<Label>,
    ) -> Result<i64, InjectError> {
        let label = label.into();
        self.enter(nr, args, &label)?;
        self.interrupt_here(&label)?;
        Ok(self.get_regs(&label)?.rax.cast_signed())
    }

    /// Unmaps the scratch memory and gives the tracee back, in an event stop, with the registers and signal mask that it had.
    ///
    /// The exit stop outlives the page that the call was made from, and the event stop comes before the next instruction, so none is
    /// fetched from where nothing is mapped.
    ///
    /// # Errors
    /// [`InjectError::Call`] when it cannot be unmapped.
    pub fn unmap_scratch_and_stop(mut self) -> Result<Tracee<Stopped>, InjectError> {
        let Scratch { base, len } = self.scratch;
        self.call(libc::SYS_munmap, &[base.0, len], "unmap scratch memory")?;
        self.release()
    }

    /// Ends a first thread with an exit code while other threads of its process go on: it is a zombie until they end, of which no
    /// tracer is told. It outlives its tracer before, since SIGKILL to it would be one for the others.
    ///
    /// # Errors
    /// [`InjectError::TimedOut`] when it does not end.
    pub fn exit_first_thread(mut self, code: u8) -> Result<(), InjectError> {
        let label = Cow::Borrowed("exit of the first thread");
        let exit = UserRegs {
            rip: self.gadget.0.0,
            rax: libc::SYS_exit.cast_unsigned(),
            rdi: code.into(),
            ..self.clean_regs()
        };
        self.set_regs(&exit, &label)?;
        let tracee = self.take_tracee(&label)?;
        ptrace(tracee.set_options(SeizeOptions::default()), &label)?;
        // Nothing stops it any more, and its end is not reported.
        let _ending = ptrace(tracee.cont(None), &label)?;
        let deadline = Instant::now() + self.timeout;
        while !is_zombie(self.tid) {
            if Instant::now() > deadline {
                return Err(InjectError::TimedOut { tid: self.tid, label });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Gives the tracee back, in an event stop, with the registers and signal mask that it had.
    ///
    /// # Errors
    /// [`InjectError::Lost`] after an error that lost it; [`InjectError::Died`].
    pub fn release(mut self) -> Result<Tracee<Stopped>, InjectError> {
        let label = Cow::Borrowed("release");
        // Neither an exit stop, after which a restart code has no effect, nor the stop of the marker, which would kill the task
        // if the tracer died in it.
        if !matches!(self.stopped("release")?.stop(), Stop::Event { .. }) {
            self.interrupt_here(&label)?;
        }
        let regs = self.regs;
        self.set_regs(&regs, &label)?;
        let tracee = self.tracee.take().ok_or(InjectError::Lost { tid: self.tid, label: label.clone() })?;
        ptrace(tracee.set_sigmask(self.sigmask), &label)?;
        Ok(tracee)
    }

    /// The tracee, for a step of one's own; without it nothing else can be done until it is put back.
    pub(crate) fn take_tracee(&mut self, label: &Label) -> Result<Tracee<Stopped>, InjectError> {
        self.tracee.take().ok_or(InjectError::Lost { tid: self.tid, label: label.clone() })
    }

    pub(crate) fn put_tracee(&mut self, tracee: Tracee<Stopped>) -> Stop {
        self.tracee.insert(tracee).stop()
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The program's own stack pointer.
    pub(crate) fn stack_pointer(&self) -> u64 {
        self.regs.rsp
    }

    pub(crate) fn write(&self, address: RemoteAddress, bytes: &[u8]) -> Result<(), InjectError> {
        // The id of a task that is lost may be another's by now.
        self.stopped("write scratch memory")?;
        let range = RemoteRange { start: address.0, len: bytes.len() };
        memory::write_ranges(self.tid.pid(), &[range], bytes).map_err(|source| InjectError::Memory {
            tid: self.tid,
            action: "write",
            address,
            source,
        })
    }

    pub(crate) fn read(&self, address: RemoteAddress, bytes: &mut [u8]) -> Result<(), InjectError> {
        self.stopped("read scratch memory")?;
        memory::read(self.tid.pid(), address.0, bytes).map_err(|source| InjectError::Memory {
            tid: self.tid,
            action: "read",
            address,
            source,
        })
    }
}

/// What /proc says of a task that has ended and of which something is left.
fn is_zombie(tid: HostPid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", tid.raw())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('Z'))
}

/// `ERESTARTSYS` to `ERESTARTNOHAND` and `ERESTART_RESTARTBLOCK`: what a tracer sees in the place of a result.
fn is_restart(result: i64) -> bool {
    matches!(result, -514..=-512 | -516)
}

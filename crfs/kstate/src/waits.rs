//! When a wait with a time limit ends, of a thread that waits: for calls that leave no restart block behind.
//!
//! Such a call keeps the end in a timer on the thread's kernel stack, and forgets it when it is interrupted; so this is asked while the
//! thread waits and nobody traces it. It is found through a pidfd of the calling thread, and the timer by its last member, which
//! points back to the thread. Sockets with a time limit have a timer that counts jiffies in the place of nanoseconds. All of it may change while it is read: what comes back is what was true a moment ago, or nothing.
//!
//! Source: include/linux/hrtimer.h (`struct hrtimer_sleeper`), kernel/time/sleep_timeout.c (`schedule_hrtimeout_range_clock`, `schedule_timeout`), fs/pidfs.c,
//! include/linux/pid.h, v6.18; pidfd_open(2).

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::error::Error;
use crate::feature::Feature;
use crate::files;
use crate::jiffies::Jiffies;
use crate::paths::Path;
use crate::state::{KernelState, View};
use crate::tasks::{Task, word};

/// The size of a kernel stack (THREAD_SIZE), and its alignment.
const STACK_SIZE: u64 = 16 * 1024;
/// The kernel's half of the address space begins here.
const KERNEL: u64 = 0xffff_8000_0000_0000;
/// The kernel's code, and that of modules, lies from here on (Documentation/arch/x86/x86_64/mm.rst).
const KERNEL_CODE: u64 = 0xffff_ffff_8000_0000;
/// Bit of an enqueued timer (HRTIMER_STATE_ENQUEUED).
const ENQUEUED: u8 = 1;

/// A timer on a kernel stack that will wake the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sleeper {
    /// What it calls.
    pub(crate) function: u64,
    /// When, in the host's CLOCK_MONOTONIC.
    pub(crate) expires_ns: u64,
}

impl KernelState {
    /// When the wait of a thread ends at the latest: nanoseconds of the host's CLOCK_MONOTONIC. None for a thread
    /// that runs, or waits without end, or on another clock. `thread` is a pidfd of it (PIDFD_THREAD), open in the calling thread.
    ///
    /// # Errors
    /// [`Error::FeatureOff`]; [`Error::Gone`] when the thread has ended, [`Error::Read`].
    pub fn wait_end(&self, thread: BorrowedFd<'_>, tid: i32) -> Result<Option<u64>, Error> {
        let wakes = |sleeper: &Sleeper| sleeper.function == self.known.wakeup;
        Ok(self.sleepers(thread, tid)?.into_iter().find(wakes).map(|sleeper| sleeper.expires_ns))
    }

    /// Everything on the thread's stack that looks like a running timer which points back to the thread.
    pub(crate) fn sleepers(&self, thread: BorrowedFd<'_>, tid: i32) -> Result<Vec<Sleeper>, Error> {
        self.timers(Feature::WaitEnd, Path::SleeperTask, thread, tid, sleeper)
    }

    /// The same of a wait whose time limit is a socket's (SO_RCVTIMEO, SO_SNDTIMEO).
    ///
    /// # Errors
    /// As [`KernelState::wait_end`].
    pub fn socket_wait_end(&self, thread: BorrowedFd<'_>, tid: i32, jiffies: &Jiffies) -> Result<Option<u64>, Error> {
        let wakes = |timer: &Sleeper| timer.function == self.known.timeout;
        Ok(self.timeouts(thread, tid, jiffies)?.into_iter().find(wakes).map(|timer| timer.expires_ns))
    }

    /// As [`KernelState::sleepers`], of timers that count jiffies.
    pub(crate) fn timeouts(&self, thread: BorrowedFd<'_>, tid: i32, jiffies: &Jiffies) -> Result<Vec<Sleeper>, Error> {
        let timer = |view: &View<'_>, start| timeout(view, start, jiffies);
        self.timers(Feature::SocketWaitEnd, Path::TimeoutTask, thread, tid, timer)
    }

    /// The timers on the thread's stack, whose member `own` points back to the thread.
    fn timers(
        &self,
        feature: Feature,
        own: Path,
        thread: BorrowedFd<'_>,
        tid: i32,
        read: impl Fn(&View<'_>, u64) -> Result<Option<Sleeper>, Error>,
    ) -> Result<Vec<Sleeper>, Error> {
        let caller = Task::caller(tid);
        let view = self.view(feature, &caller)?;
        let task = task(&view, thread)?;
        if view.u32_from(task, &[Path::TaskPid])?.cast_signed() != tid {
            return Err(Error::Gone { tid, path: Path::TaskPid.names()[0].to_owned() });
        }
        let (top, pointer) =
            (view.u64_from(task, &[Path::TaskStack])?, view.u64_from(task, &[Path::TaskStackPointer])?);
        let used = top.wrapping_add(STACK_SIZE).wrapping_sub(pointer);
        if used > STACK_SIZE || !pointer.is_multiple_of(8) {
            // Another size of stacks than is known here.
            return Ok(Vec::new());
        }
        // At most 16 KiB.
        let mut stack = vec![0; usize::try_from(used).unwrap_or(0)];
        view.bytes_at(pointer, Path::TaskStack, &mut stack)?;
        let own = view.offset(own)?;
        let mut found = Vec::new();
        for (place, value) in (pointer..).step_by(8).zip(stack.chunks_exact(8).map(|bytes| word(bytes, 0))) {
            let start = place.wrapping_sub(own);
            if value == task && start >= pointer {
                found.extend(read(&view, start)?);
            }
        }
        Ok(found)
    }
}

/// The task behind a pidfd.
pub(crate) fn task(view: &View<'_>, thread: BorrowedFd<'_>) -> Result<u64, Error> {
    let file = files::file(view, thread.as_raw_fd())?;
    let pid = view.u64_from(file, &[Path::FileInode, Path::InodePrivate])?;
    match view.u64_from(pid, &[Path::PidTasks])? {
        0 => Err(Error::Gone { tid: view.tid(), path: Path::PidTasks.names()[0].to_owned() }),
        link => Ok(link.wrapping_sub(view.offset(Path::TaskPidLinks)?)),
    }
}

fn sleeper(view: &View<'_>, start: u64) -> Result<Option<Sleeper>, Error> {
    let mut queued = [0];
    view.bytes_from(start, &[Path::SleeperQueued], &mut queued)?;
    if queued[0] & ENQUEUED == 0 {
        return Ok(None);
    }
    // What is no timer may hold anything in the place of the base.
    let clock = view.u32_from(start, &[Path::SleeperBase, Path::TimerBaseClock]);
    if !clock.is_ok_and(|clock| clock.cast_signed() == libc::CLOCK_MONOTONIC) {
        return Ok(None);
    }
    let at = |path| view.u64_from(start, &[path]);
    let found = Sleeper { function: at(Path::SleeperFunction)?, expires_ns: at(Path::SleeperExpires)? };
    // What calls left behind on the stack may pass so far: functions lie in the half of the address space that is the kernel's, times do not.
    Ok((found.function >= KERNEL && (1..KERNEL).contains(&found.expires_ns)).then_some(found))
}

fn timeout(view: &View<'_>, start: u64, jiffies: &Jiffies) -> Result<Option<Sleeper>, Error> {
    // Of one that is in no list it is null.
    if view.u64_from(start, &[Path::TimeoutQueued])? < KERNEL {
        return Ok(None);
    }
    let function = view.u64_from(start, &[Path::TimeoutFunction])?;
    let expires = jiffies.to_ns(view.u64_from(start, &[Path::TimeoutExpires])?);
    Ok(expires.filter(|_| function >= KERNEL_CODE).map(|expires_ns| Sleeper { function, expires_ns }))
}

//! System calls that were interrupted and would be restarted with what remains of their time.
//!
//! The kernel keeps the rest in the thread's restart block, one union for all kinds of calls. It means something only for a
//! thread whose stopped call returned -516 (ERESTART_RESTARTBLOCK); otherwise it is what an earlier call left behind. Times are the kernel's
//! own: those of the host's time namespace, whatever namespace the thread lives in.
//!
//! Source: include/linux/restart_block.h, kernel/time/hrtimer.c (`hrtimer_nanosleep`), fs/select.c (`sys_poll`), kernel/futex/waitwake.c, v6.18.

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::Task;

/// The functions that `restart_block.fn` points to, learned in calibration: the kernel does not tell names of addresses everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RestartFunctions {
    pub(crate) none: u64,
    pub(crate) nanosleep: u64,
    pub(crate) poll: u64,
    pub(crate) futex: u64,
}

/// What would be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartBlock {
    /// Nothing.
    None,
    /// nanosleep(2), or clock_nanosleep(2) relative to a clock other than a processor clock.
    Nanosleep(RestartNanosleep),
    /// poll(2).
    Poll(RestartPoll),
    /// futex(2) FUTEX_WAIT or FUTEX_WAIT_BITSET with a time limit.
    Futex(RestartFutex),
    /// Another call: a sleep on a processor or alarm clock, a futex wait for a requeue, ...
    Other {
        /// Address of the kernel's function.
        function: u64,
    },
}

/// A relative sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartNanosleep {
    /// The clock it is counted in.
    pub clockid: i32,
    /// Which structure `rmtp` points to: 0 none, 1 the native timespec, 2 the 32-bit one.
    pub kind: u32,
    /// Where the call would write the time that remained; 0 for nowhere.
    pub rmtp: u64,
    /// When it ends, in the host's time of that clock, nanoseconds. Includes the timer slack, 50 us unless set.
    pub expires_ns: u64,
}

/// A poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPoll {
    /// Address of the array of struct pollfd.
    pub ufds: u64,
    /// Its length.
    pub nfds: u32,
    /// When it ends, in the host's CLOCK_MONOTONIC: seconds and nanoseconds. None: never.
    pub expires: Option<(u64, u64)>,
}

/// A futex wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartFutex {
    /// The word.
    pub uaddr: u64,
    /// What it was expected to hold.
    pub val: u32,
    /// The kernel's own flags (kernel/futex/futex.h, FLAGS_*), not those of futex(2): 0x20 for CLOCK_REALTIME, 0x40 for a time limit.
    pub flags: u32,
    /// The bits waited for, all set for FUTEX_WAIT.
    pub bitset: u32,
    /// When it ends, nanoseconds of the host's CLOCK_MONOTONIC, or of CLOCK_REALTIME when the flags say so.
    pub time_ns: u64,
    /// The second word, used only by requeueing waits.
    pub uaddr2: u64,
}

impl KernelState {
    /// The restart block, with the arm that belongs to its function.
    ///
    /// # Errors
    /// [`Error::FeatureOff`] also when the arm's own feature is off; [`Error::Read`].
    pub fn restart_block(&self, task: &Task) -> Result<RestartBlock, Error> {
        let function = self.restart_function(task)?;
        let known = &self.known.restart;
        Ok(if function == known.nanosleep {
            RestartBlock::Nanosleep(self.restart_nanosleep(task)?)
        } else if function == known.poll {
            RestartBlock::Poll(self.restart_poll(task)?)
        } else if function == known.futex {
            RestartBlock::Futex(self.restart_futex(task)?)
        } else if function == known.none {
            RestartBlock::None
        } else {
            RestartBlock::Other { function }
        })
    }

    pub(crate) fn restart_function(&self, task: &Task) -> Result<u64, Error> {
        self.view(Feature::RestartKind, task)?.u64(&[Path::RestartFunction])
    }

    /// The arm of a sleep, whether or not it is the one in use.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn restart_nanosleep(&self, task: &Task) -> Result<RestartNanosleep, Error> {
        let view = self.view(Feature::RestartNanosleep, task)?;
        Ok(RestartNanosleep {
            clockid: view.i32(&[Path::SleepClock])?,
            kind: view.u32(&[Path::SleepType])?,
            rmtp: view.u64(&[Path::SleepRmtp])?,
            expires_ns: view.u64(&[Path::SleepExpires])?,
        })
    }

    /// The arm of a poll, whether or not it is the one in use.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn restart_poll(&self, task: &Task) -> Result<RestartPoll, Error> {
        let view = self.view(Feature::RestartPoll, task)?;
        let expires = if view.u32(&[Path::PollHasTimeout])? == 0 {
            None
        } else {
            Some((view.u64(&[Path::PollSeconds])?, view.u64(&[Path::PollNanos])?))
        };
        Ok(RestartPoll { ufds: view.u64(&[Path::PollFds])?, nfds: view.u32(&[Path::PollCount])?, expires })
    }

    /// The arm of a futex wait, whether or not it is the one in use.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`].
    pub fn restart_futex(&self, task: &Task) -> Result<RestartFutex, Error> {
        let view = self.view(Feature::RestartFutex, task)?;
        Ok(RestartFutex {
            uaddr: view.u64(&[Path::FutexAddress])?,
            val: view.u32(&[Path::FutexValue])?,
            flags: view.u32(&[Path::FutexFlags])?,
            bitset: view.u32(&[Path::FutexBitset])?,
            time_ns: view.u64(&[Path::FutexTime])?,
            uaddr2: view.u64(&[Path::FutexAddress2])?,
        })
    }
}

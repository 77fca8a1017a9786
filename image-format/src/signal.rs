//! Signals: sets, actions, queues.

use crate::flags;
use crate::types::{Address, Blob};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A signal number, 1 to 64, written by its name (`SIGUSR1`); real-time signals and those of libc are `SIG32` to `SIG64`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(pub u8);

impl Signal {
    /// What a process usually sends its parent when it ends.
    pub const SIGCHLD: Signal = Signal(17);
}

const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

impl Signal {
    /// The signal called so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        if let Some(index) = NAMES.iter().position(|&known| known == name) {
            return u8::try_from(index + 1).ok().map(Signal);
        }
        let number: u8 = name.strip_prefix("SIG")?.parse().ok()?;
        let signal = Signal(number);
        // `parse` takes a sign and leading zeros.
        ((32..=64).contains(&number) && signal.to_string() == name).then_some(signal)
    }
}
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(usize::from(self.0).wrapping_sub(1)) {
            Some(name) => f.write_str(name),
            None => write!(f, "SIG{}", self.0),
        }
    }
}
impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        crate::types::deserialize_text(deserializer, |name| {
            Signal::from_name(name).ok_or_else(|| format!("unknown signal {name:?}"))
        })
    }
}

/// A set of signals: bit n - 1 stands for signal n, as in the kernel's `sigset_t`. Written as an array of names.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SignalSet(pub u64);

impl SignalSet {
    /// Its members in ascending order.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        (1..=64u8).filter(move |n| self.0 >> (n - 1) & 1 == 1).map(Signal)
    }
}
impl fmt::Debug for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
impl Serialize for SignalSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}
impl<'de> Deserialize<'de> for SignalSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let signals = Vec::<Signal>::deserialize(deserializer)?;
        Ok(SignalSet(signals.iter().fold(0, |set, signal| set | 1 << (signal.0 - 1))))
    }
}

/// `signal` of a thread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalMask {
    /// Blocked signals.
    pub blocked: SignalSet,
}

/// `signal.altstack` of a thread: sigaltstack(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AltStack {
    /// Lowest address.
    pub sp: Address,
    /// Bytes.
    pub size: u64,
    /// `SS_DISABLE` when there is none, `SS_AUTODISARM`.
    pub flags: AltStackFlags,
}

flags! {
    /// `ss_flags`.
    AltStackFlags { SS_ONSTACK = 1, SS_DISABLE = 2, SS_AUTODISARM = 1 << 31 }
}

flags! {
    /// `sa_flags`.
    ActionFlags {
        SA_NOCLDSTOP = 1, SA_NOCLDWAIT = 2, SA_SIGINFO = 4, SA_UNSUPPORTED = 0x400, SA_EXPOSE_TAGBITS = 0x800,
        SA_RESTORER = 0x0400_0000, SA_ONSTACK = 0x0800_0000, SA_RESTART = 0x1000_0000, SA_NODEFER = 0x4000_0000,
        SA_RESETHAND = 0x8000_0000,
    }
}

/// A line of `signal.action`: one signal whose action is not the default with nothing set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalAction {
    /// The signal.
    pub signal: Signal,
    /// `0x0` is SIG_DFL, `0x1` SIG_IGN.
    pub handler: Address,
    /// `sa_flags`.
    pub flags: ActionFlags,
    /// `sa_restorer`.
    pub restorer: Address,
    /// Blocked while the handler runs.
    pub mask: SignalSet,
}

/// A line of `signal.pending`: a queued signal, in the order of the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PendingSignal {
    /// The signal.
    pub signal: Signal,
    /// `si_code`, such as -1 for SI_QUEUE.
    pub code: i32,
    /// The whole siginfo_t as the kernel keeps it, 128 bytes.
    pub siginfo: Blob,
}

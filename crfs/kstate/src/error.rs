//! What can go wrong between a question and the kernel's memory.

use std::io;
use std::path::PathBuf;

use crfs_sys::bpf::{LoadError, ReadError};
use thiserror::Error;

use crate::btf::BtfError;
use crate::feature::{Disabled, Feature};

/// A failure of this crate. Nothing of it changes or harms the task that was asked about.
#[derive(Debug, Error)]
pub enum Error {
    /// The kernel does not describe its types.
    #[error(
        "cannot read {}, where the kernel describes its structures: use a kernel built with CONFIG_DEBUG_INFO_BTF=y, with sysfs mounted",
        path.display()
    )]
    NoBtf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The description cannot be understood.
    #[error("{} is not the BTF this program understands (5.14 - 6.18): use one of those kernels, or a newer crfs", path.display())]
    BadBtf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: BtfError,
    },
    /// Kernel memory cannot be read.
    #[error(
        "bpf(2) does not let us read kernel memory: it takes Linux 5.14 or later with CONFIG_BPF_SYSCALL=y, CAP_SYS_ADMIN (or CAP_BPF with \
         CAP_PERFMON) in the first user namespace, and no kernel lockdown in confidentiality mode"
    )]
    NoBpf {
        /// The call that failed.
        source: LoadError,
    },
    /// The testing aid names a feature that does not exist.
    #[error("CRFS_KSTATE_FAULT={value} names no feature: unset it, or use a name of the status listing")]
    UnknownFault {
        /// Its value.
        value: String,
    },
    /// A file that identifies this boot cannot be read.
    #[error("cannot read {}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The cache could not be written.
    #[error("cannot write the cache of kernel offsets {}", path.display())]
    SaveCache {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The getter belongs to a feature that is off.
    #[error("{feature} cannot be read on this kernel: {why}")]
    FeatureOff {
        /// The feature.
        feature: Feature,
        /// Why.
        why: String,
    },
    /// Kernel memory could not be read at the place where a member should be.
    #[error("cannot read {path} of task {tid}")]
    Read {
        /// The task, 0 for the caller.
        tid: i32,
        /// The members on the way.
        path: String,
        /// Why.
        source: ReadError,
    },
    /// A pointer on the way is null: the task is exiting, or a kernel thread.
    #[error("task {tid} has no {path}: it is exiting, or not a program")]
    Gone {
        /// The task.
        tid: i32,
        /// The members on the way.
        path: String,
    },
    /// A list is not whole.
    #[error("{list} of task {tid} changed while it was read, or is no list: read it while the task is stopped")]
    List {
        /// The task, 0 for the caller.
        tid: i32,
        /// The list's member.
        list: &'static str,
    },
    /// The descriptor is closed.
    #[error("task {tid} has no open file {fd}")]
    NotOpen {
        /// The task.
        tid: i32,
        /// The descriptor.
        fd: i32,
    },
    /// The descriptor is something else than a pipe.
    #[error("file {fd} of task {tid} is not a pipe")]
    NotAPipe {
        /// The task.
        tid: i32,
        /// The descriptor.
        fd: i32,
    },
    /// Calibration itself could not be carried out.
    #[error("calibrating the reader of kernel state: {doing}")]
    Calibrate {
        /// The step.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl From<&Disabled> for Error {
    fn from(disabled: &Disabled) -> Self {
        Self::FeatureOff { feature: disabled.feature, why: disabled.why.clone() }
    }
}

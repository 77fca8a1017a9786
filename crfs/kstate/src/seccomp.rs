//! The filters that a thread's system calls go through: which threads have the same, and whether somebody listens to one.
//!
//! Their programs are for ptrace to read (PTRACE_SECCOMP_GET_FILTER).
//!
//! Source: include/linux/seccomp_types.h, kernel/seccomp.c, v6.18; seccomp(2).

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::Task;

/// More filters than the instructions of one thread's filters allow (MAX_INSNS_PER_PATH): the list is no list.
const MAX_FILTERS: usize = 1 << 15;

/// A filter of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeccompFilter {
    /// Where it lies: the same filter in two threads lies in one place.
    pub address: u64,
    /// Whether it asks a supervisor through an open descriptor (SECCOMP_FILTER_FLAG_NEW_LISTENER).
    pub has_listener: bool,
}

impl KernelState {
    /// The thread's filters, the newest first.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Read`]; [`Error::List`] for more filters than a thread can have.
    pub fn seccomp_filters(&self, task: &Task) -> Result<Vec<SeccompFilter>, Error> {
        if self.absent(Feature::Seccomp) {
            return Ok(Vec::new());
        }
        let view = self.view(Feature::Seccomp, task)?;
        let mut filters = Vec::new();
        let mut address = view.u64(&[Path::TaskSeccompFilter])?;
        while address != 0 {
            if filters.len() >= MAX_FILTERS {
                return Err(Error::List { tid: task.tid(), list: "seccomp.filter" });
            }
            let has_listener = view.u64_from(address, &[Path::FilterNotif])? != 0;
            filters.push(SeccompFilter { address, has_listener });
            address = view.u64_from(address, &[Path::FilterPrev])?;
        }
        Ok(filters)
    }
}

//! Queues of pending signals, as PTRACE_PEEKSIGINFO tells them of a stopped thread: of one that merely does not run.
//!
//! Source: include/linux/signal_types.h (`struct sigpending`, `struct sigqueue`), kernel/signal.c, v6.18.

use crfs_sys::ptrace::SigInfo;

use crate::error::Error;
use crate::feature::Feature;
use crate::paths::Path;
use crate::state::KernelState;
use crate::tasks::{Task, word};

/// What the kernel keeps of a siginfo; the rest is zero (`kernel_siginfo_t`).
const KEPT: usize = 48;
/// More than RLIMIT_SIGPENDING allows anybody.
const MOST: usize = 1 << 24;

impl KernelState {
    /// The pending signals, oldest first: the thread's own, or with `shared` its process's.
    ///
    /// # Errors
    /// [`Error::FeatureOff`], [`Error::Gone`], [`Error::Read`]; [`Error::List`] when it changes meanwhile.
    pub fn pending_signals(&self, task: &Task, shared: bool) -> Result<Vec<SigInfo>, Error> {
        let view = self.view(Feature::PendingSignals, task)?;
        let list: &[Path] =
            if shared { &[Path::TaskSignal, Path::SharedPendingList] } else { &[Path::TaskPendingList] };
        let mut links = [0; 16];
        // Not from what was kept: signals come meanwhile.
        let head = view.bytes_from(task.address(), list, &mut links)?;
        let (entry, info) = (view.offset(Path::SigqueueList)?, view.offset(Path::SigqueueInfo)?);
        let mut queue = Vec::new();
        let (mut previous, mut node) = (head, word(&links, 0));
        while node != head {
            view.bytes_at(node, Path::SigqueueList, &mut links)?;
            if word(&links, 8) != previous || queue.len() >= MOST {
                return Err(Error::List { tid: task.tid(), list: "sigpending" });
            }
            let mut siginfo: SigInfo = [0; 128];
            let kept = siginfo.first_chunk_mut::<KEPT>();
            if let Some(kept) = kept {
                view.bytes_at(node.wrapping_sub(entry).wrapping_add(info), Path::SigqueueInfo, kept)?;
            }
            queue.push(siginfo);
            (previous, node) = (node, word(&links, 0));
        }
        Ok(queue)
    }
}

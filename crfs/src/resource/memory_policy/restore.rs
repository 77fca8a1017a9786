//! Sets memory policies again.

use crfs_tracee::{Arg, Batch};
use image_format::controls::{HugePages, MemoryPolicy};

const PR_SET_THP_DISABLE: u64 = 41;
const PR_THP_DISABLE_EXCEPT_ADVISED: u64 = 2;
const PR_SET_MDWE: u64 = 65;
const PR_SET_MEMORY_MERGE: u64 = 67;

/// The calls of a process that has its memory and its children. mlockall(2) leaves mappings alone that are there.
pub fn restore(batch: &mut Batch, policy: &MemoryPolicy) {
    let mut prctl = |args: &[u64], label: &'static str| {
        let args: Vec<Arg> = args.iter().map(|&arg| arg.into()).collect();
        batch.call(libc::SYS_prctl, &args, label);
    };
    match policy.huge_pages {
        HugePages::Default => {}
        HugePages::Never => prctl(&[PR_SET_THP_DISABLE, 1], "prctl(PR_SET_THP_DISABLE)"),
        HugePages::Advised => {
            prctl(&[PR_SET_THP_DISABLE, 1, PR_THP_DISABLE_EXCEPT_ADVISED], "prctl(PR_SET_THP_DISABLE)");
        }
    }
    if policy.merge {
        prctl(&[PR_SET_MEMORY_MERGE, 1], "prctl(PR_SET_MEMORY_MERGE)");
    }
    if policy.mdwe.0 != 0 {
        prctl(&[PR_SET_MDWE, policy.mdwe.0], "prctl(PR_SET_MDWE)");
    }
    if policy.lock_future.0 != 0 {
        batch.call(libc::SYS_mlockall, &[policy.lock_future.0.into()], "mlockall");
    }
}
